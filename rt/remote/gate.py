"""The gate of a process: sockets that listen on the network, open to stations with a key and to nobody else.

ZMQ encrypts and authenticates with CURVE; whether a key counts, libzmq asks by ZAP (RFC 27) on a socket of this process, which
a task of the gate answers. The rules of this module: what is not answered is refused (ZAP_ENFORCE_DOMAIN), a socket file and
the loopback interface need no keys, and a station that is revoked loses the connections that it has.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
import trio
import zmq

from rt import log
from rt.config import is_open
from rt.keys import Bundle, KeyPair, Keyring
from rt.remote.inproc import receive
from rt.remote.listener import Listener, Turnstile
from rt.remote.socket import LINGER, Socket

if TYPE_CHECKING:
    from rt.remote.door import Door

DOMAIN = "rt"
HANDSHAKE_TIMEOUT = 5000
"""How long a station may take to show its key, in ms."""

LOOK_INTERVAL = 0.5
"""Time between two looks at the files of the keys, in s: after at most so long a station that was revoked is out."""

COMPLAINT_INTERVAL = 1.0
"""Time between two log events about strangers, in s; those between are counted."""

_TEND_INTERVAL = 0.02
_TOLD_MAX = 256


class GateCounters(msgspec.Struct):
    """What came to the gate.

    Attributes:
        admitted: Connections with the key of a station.
        refused: Connections with another key; who does not even know the robot's key is not among them.
    """

    admitted: int = 0
    refused: int = 0


def secure(socket: Socket, robot: KeyPair) -> None:
    """Make everything that a socket binds from now on take only stations that the gate of this process admits.

    For good: libzmq knows no way back, so that what shall be open to all is bound before.
    """
    socket.set_option(zmq.CURVE_SERVER, 1)
    socket.set_option(zmq.CURVE_SECRETKEY, robot.secret.encode())
    socket.set_option(zmq.ZAP_DOMAIN, DOMAIN.encode())
    # Without it libzmq admits everybody who knows the robot's public key while no ZAP handler is there.
    socket.set_option(zmq.ZAP_ENFORCE_DOMAIN, 1)
    # Who connects and then says nothing holds a descriptor of the root for so long.
    socket.set_option(zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT)


def curve_options(bundle: Bundle) -> dict[int, int | bytes]:
    """The ZMQ options of a station's socket."""
    return {
        zmq.CURVE_SERVERKEY: bundle.robot_public.encode(),
        zmq.CURVE_PUBLICKEY: bundle.public.encode(),
        zmq.CURVE_SECRETKEY: bundle.secret.encode(),
    }


class Gate:
    """Binds sockets, admits stations, and throws out those whose keys are revoked. One for each ZMQ context.

    Args:
        keyring: Who may connect; refreshed while the gate runs.
        insecure: Whether everybody may.
        context: ZMQ context; by default the one of the process.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        insecure: bool = False,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.counters = GateCounters()
        self.keyring = keyring
        self._insecure = insecure
        self._context = context or zmq.Context.instance()
        self._log = log.get_logger()
        self._door: Door | None = None
        self._opened = trio.Event()
        self._turnstile = Turnstile()
        self._guarded: list[tuple[Socket, str, Listener]] = []
        self._said_at = -math.inf
        self._unsaid = 0
        self._told: set[tuple[str, str]] = set()
        self._problems: tuple[str, ...] = ()
        self._revoked = False
        keyring.refresh()
        self._tell_problems()

    def guards(self, address: str) -> bool:
        """Whether an address is only for those with a key."""
        return not self._insecure and is_open(address)

    def bind(self, socket: Socket, addresses: Iterable[str]) -> tuple[str, ...]:
        """Bind a socket to all its addresses, those on the network for stations with a key only; the real addresses.

        Raises:
            InstanceBusyError: An address is in use.
            ConfigError: An address cannot be bound, or the robot's key cannot be read or made.
        """
        wanted = tuple(addresses)
        found = {address: self._listen(socket, address) for address in wanted if not self.guards(address)}
        for address in wanted:
            if self.guards(address):
                if address not in found:
                    self._open()
                    secure(socket, self.keyring.robot())
                found[address] = self._listen(socket, address)
        return tuple(found[address] for address in wanted)

    def _listen(self, socket: Socket, address: str) -> str:
        if not address.startswith("tcp://"):
            return socket.bind(address)
        listener = Listener(address)
        self._turnstile.add(listener)
        endpoint = listener.hand_to(socket)
        if self.guards(address):
            self._guarded.append((socket, endpoint, listener))
        return endpoint

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer for the sockets that were bound, until cancelled; then nobody is admitted, and the addresses are given up."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer)
                nursery.start_soon(self._watch_keys)
                nursery.start_soon(self._turnstile.run)
                task_status.started()
        finally:
            self._turnstile.close()
            if self._door is not None:
                self._door.stop()

    def admits(self, public: str, origin: str) -> str | None:
        """The name of the station with a public key (Z85) that connects from an IP address; counted, and told in the log."""
        self._refresh()
        station = self.keyring.station_of(public)
        if station is not None:
            self.counters.admitted += 1
            self._tell_once(station, origin)
            return station
        self.counters.refused += 1
        now = trio.current_time()
        if now - self._said_at < COMPLAINT_INTERVAL:
            self._unsaid += 1
        else:
            self._log.warning("a connection with an unknown key was refused", peer=origin, unsaid=self._unsaid)
            self._said_at, self._unsaid = now, 0
        return None

    def _tell_once(self, station: str, origin: str) -> None:
        """Say at the first time that a station connects; a command of its makes a connection or two each time."""
        tell = self._log.debug if (station, origin) in self._told else self._log.info
        tell("a station has connected", station=station, peer=origin)
        if len(self._told) < _TOLD_MAX:
            self._told.add((station, origin))

    def _open(self) -> None:
        if self._door is None:
            # Imported by a robot that is open to the network only: start-up time counts.
            from rt.remote.door import Door

            self._door = Door(DOMAIN, self.admits, self._context)
            self._door.start()
            self._opened.set()

    async def _answer(self) -> None:
        await self._opened.wait()
        assert self._door is not None
        while True:
            await self._door.handle_zap_message(await receive(self._door.zap_socket))

    async def _watch_keys(self) -> None:
        while True:
            self._refresh()
            if self._revoked:
                self._revoked = False
                await self._rebind()
            await trio.sleep(LOOK_INTERVAL)

    def _refresh(self) -> None:
        before = self.keyring.stations
        if not self.keyring.refresh():
            return
        after = self.keyring.stations
        if gone := sorted(name for name in before if after.get(name) != before[name]):
            self._revoked = True
            self._log.warning("keys were revoked", stations=gone)
        if new := sorted(after.keys() - before.keys()):
            self._log.info("keys were added", stations=new)
        self._tell_problems()

    def _tell_problems(self) -> None:
        for problem in self.keyring.problems:
            if problem not in self._problems:
                self._log.error(problem)
        self._problems = self.keyring.problems

    async def _rebind(self) -> None:
        """End all connections of the network: libzmq cannot end a single one. Whoever still has a key is back at once."""
        self._guarded = [each for each in self._guarded if not each[0].closed]
        for socket, address, listener in self._guarded:
            socket.unbind(address)
            try:
                listener.hand_to(socket)
            except OSError as error:
                self._revoked = True  # to be done again at the next look
                self._log.error("after keys were revoked the robot cannot listen yet", reason=error.strerror)
        deadline = trio.current_time() + 2 * LINGER / 1000
        while trio.current_time() < deadline:
            for socket, _, _ in self._guarded:
                socket.tend()
            await trio.sleep(_TEND_INTERVAL)
