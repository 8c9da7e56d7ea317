"""The gate of a process: accepts the TCP connections of its ZMQ sockets, and decides for each who is at the other end.

| address | this user and root | another user of this computer | another computer |
| --- | --- | --- | --- |
| loopback | without a key | with a station's key | - |
| network | with a station's key | with a station's key | with a station's key |
| network, `insecure` | without a key | without a key | without a key |

rt accepts connections itself, because libzmq can tell neither the user at the other end, nor end a
single connection, nor keep a name from being taken over. Permitted connections reach the ZMQ socket
through an `Inlet`. With a key, ZMQ encrypts and authenticates by CURVE, and asks the ZAP handler
(`rt.access.zap`) whether the key counts. Invariants: what is not answered is refused
(ZAP_ENFORCE_DOMAIN), and each keyed connection has a ZAP domain of its own, so that the key that it
proves is known to belong to it.
"""

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
import trio
import zmq

from rt import log
from rt.access.bundle import Bundle
from rt.access.handshakes import Handshakes, origin
from rt.access.inlet import Inlet
from rt.access.keyring import KeyPair, Keyring
from rt.access.listener import ConnectionLimiter, Listener
from rt.access.peer import Peer, PeerTable
from rt.access.refusals import Refusals
from rt.access.relay import relay
from rt.access.stations import StationSide
from rt.config.network import is_open
from rt.errors import ConfigError, InstanceBusyError, leaves
from rt.log.throttle import Throttle
from rt.protocol import zmtp
from rt.transport.zmq_socket import LINGER, Socket

if TYPE_CHECKING:
    from rt.access.zap import ZapHandler

HANDSHAKE_TIMEOUT = 5000
"""How long a station may take to show its key, in ms."""

MAX_HANDSHAKES = 256
"""Connections that have not shown a key yet. A further one ends another one, see `rt.access.handshakes`."""
MAX_HANDSHAKES_PER_HOST = 32
"""The same, from one address, or of one user of this computer over its loopback addresses."""
MAX_GREETED = 64
"""Connections that have not shown a key yet, but a greeting, and so take six descriptors and a socket of ZMQ each."""
MAX_PER_STATION = 64
"""Connections that a station has. Each takes six descriptors and a socket of ZMQ, which has 1023."""
MAX_KEYED = 512
"""Connections with a key, proved or not."""
_SILENT_PART, _GREETED_PART = 7, 30
"""Connections without a proved key take at most a third of the descriptors from which on no connection is accepted."""

KEY_CHECK_INTERVAL = 0.5
"""Time between two looks at the files of the keys, in s: after at most so long a station that was revoked is out."""

NO_KEY = "it shows no key"
NOT_ZMTP = "it does not speak ZMTP 3"
NO_STATIONS = "it belongs to another user of this computer, and no station has a key"
UNKNOWN_KEY = "its key is unknown or revoked"
FAILED = "it ended without a key that counts; it may not know the robot's key"
SILENT = "it was silent"
CROWDED = "too many connections without a key"
CROWDED_STATION = "too many connections of its station"
CROWDED_STATIONS = "too many connections of stations"
UNUSABLE = "this process has no room for it"

_TOLD_MAX = 256
_ENDS = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, zmq.ZMQError)
"""How a connection ends whose ZMQ socket is closed, or for which there are no descriptors."""


class AuthenticatorCounters(msgspec.Struct):
    """What came to the gate.

    Attributes:
        admitted: Connections with the key of a station.
    """

    admitted: int = 0


def secure(socket: Socket, robot: KeyPair, domain: bytes) -> None:
    """Make what a socket binds from now on take only stations that the gate of this process admits.

    Args:
        socket: The socket. libzmq knows no way back.
        robot: The robot's keys.
        domain: What the gate is asked with.
    """
    socket.set_option(zmq.CURVE_SERVER, 1)
    socket.set_option(zmq.CURVE_SECRETKEY, robot.secret.encode())
    socket.set_option(zmq.ZAP_DOMAIN, domain)
    # Without it libzmq admits everybody who knows the robot's public key while no ZAP handler is
    # there.
    socket.set_option(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.set_option(zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT)


def curve_options(bundle: Bundle) -> dict[int, int | bytes]:
    """The ZMQ options of a station's socket."""
    return {
        zmq.CURVE_SERVERKEY: bundle.robot_public.encode(),
        zmq.CURVE_PUBLICKEY: bundle.public.encode(),
        zmq.CURVE_SECRETKEY: bundle.secret.encode(),
    }


class _Entrance:
    """One TCP address of a ZMQ socket."""

    def __init__(
        self, socket: Socket, address: str, inlet: Inlet, stations: StationSide | None
    ) -> None:
        self.socket = socket
        self.inlet = inlet
        self.stations = stations
        self.is_local = not is_open(address)
        self.accepts_keys = True
        self.listener = Listener(address)


class _Connection:
    """One TCP connection. It outlives a cancel of the gate for a moment, so that what was sent still arrives."""

    def __init__(self, entrance: _Entrance, peer: Peer, domain: bytes) -> None:
        self.entrance = entrance
        self.peer = peer
        self.domain = domain
        self.scope = trio.CancelScope(shield=True)
        self.socket: Socket | None = None
        self.public = ""
        self.station = ""
        self.is_refused = False


class Authenticator:
    """Listens for ZMQ sockets, admits connections, and ends those of stations whose keys are revoked. One for each ZMQ context.

    Args:
        keyring: Which stations may connect; refreshed while the gate runs.
        insecure: Whether addresses on the network need no key.
        context: ZMQ context; by default the one of the process.

    Attributes:
        refusals: Connections that were refused.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        insecure: bool = False,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.counters = AuthenticatorCounters()
        self.refusals = Refusals("connection refused")
        self.keyring = keyring
        self._insecure = insecure
        self._context = context or zmq.Context.instance()
        self._log = log.get_logger()
        self._zap: ZapHandler | None = None
        self._robot: KeyPair | None = None
        self._peers = PeerTable()
        self._limiter = ConnectionLimiter()
        self._inlets: dict[Socket, Inlet] = {}
        self._waiting: list[_Entrance] = []
        self._nursery: trio.Nursery | None = None
        self._numbers = itertools.count(1)
        self._connections: dict[bytes, _Connection] = {}
        self._shaking = Handshakes[bytes]()
        self._admitted: Counter[str] = Counter()
        self._told: set[tuple[str, str]] = set()
        self._failures = Throttle(clock=trio.current_time)
        self._problems: tuple[str, ...] = ()
        keyring.refresh()
        self._tell_problems()

    def requires_key(self, address: str) -> bool:
        """Whether an address is only for those with a key."""
        return not self._insecure and is_open(address)

    def bind(
        self,
        socket: Socket,
        addresses: Iterable[str],
        *,
        stations: StationSide | None = None,
        accepts_keys: bool = True,
    ) -> tuple[str, ...]:
        """Bind a socket to all its addresses; returns the real ones.

        Args:
            socket: The socket.
            addresses: Where it listens.
            stations: Of a ROUTER: takes the connections that show a key. Other sockets take them
                themselves.
            accepts_keys: Whether a key admits another user of this computer.

        Raises:
            InstanceBusyError: An address is in use.
            ConfigError: An address cannot be bound, or the robot's key cannot be read or made.
        """
        endpoints = []
        for address in addresses:
            if not address.startswith("tcp://"):
                # A socket file may lie where other users may open it, and an abstract name always
                # does.
                for uid in sorted({0, os.geteuid()}) if address.startswith("ipc://") else ():
                    socket.set_option(zmq.IPC_FILTER_UID, uid)
                endpoints.append(socket.bind(address))
                continue
            if self.requires_key(address):
                self._open()
            entrance = _Entrance(socket, address, self._inlet_of(socket), stations)
            entrance.accepts_keys = accepts_keys
            self._limiter.add(entrance.listener)
            endpoints.append(entrance.listener.endpoint)
            if self._nursery is None:
                self._waiting.append(entrance)
            else:
                self._nursery.start_soon(self._serve, entrance)
        return tuple(endpoints)

    def release(self, socket: Socket) -> None:
        """Let the stations' connections to a socket that is closed end, once what was sent to them has arrived."""
        for each in list(self._connections.values()):
            if each.entrance.socket is socket and each.socket is not None:
                each.socket.close()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the addresses that were bound, until cancelled; then they are given up, and connections end soon."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    for entrance in self._waiting:
                        nursery.start_soon(self._serve, entrance)
                    nursery.start_soon(self._watch_keys)
                    nursery.start_soon(self._limiter.run)
                    if self._zap is not None:
                        nursery.start_soon(self._zap.run)
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    self._nursery = None
                    deadline = trio.current_time() + 2 * LINGER / 1000
                    for each in self._connections.values():
                        each.scope.deadline = deadline
        finally:
            self._limiter.close()
            self._peers.close()
            for inlet in self._inlets.values():
                inlet.close()
            if self._zap is not None:
                self._zap.close()

    def _inlet_of(self, socket: Socket) -> Inlet:
        """The way in for connections without a key. It has to be made before the socket is ever secured."""
        if socket not in self._inlets:
            for gone in [each for each in self._inlets if each.closed]:
                self._inlets.pop(gone).close()
            try:
                self._inlets[socket] = Inlet(socket)
            except OSError as error:
                raise ConfigError(
                    f"cannot make a socket for connections over TCP: {error.strerror or error}; make /tmp writable"
                ) from None
        return self._inlets[socket]

    async def _serve(self, entrance: _Entrance) -> None:
        """Accept the connections of one address."""
        while True:
            while entrance.is_local and (wait := self._peers.budget.wait):  # noqa: ASYNC110 - time alone refills it
                await trio.sleep(wait)
            accepted = await entrance.listener.accept()
            self._limiter.look()
            try:
                peer = self._peer_of(entrance, accepted)
            except OSError:  # it has left already
                peer = None
            if peer is None or self._nursery is None:
                accepted.close()
                continue
            connection = _Connection(entrance, peer, b"rt-%d" % next(self._numbers))
            self._connections[connection.domain] = connection
            self._nursery.start_soon(self._carry, connection, accepted)

    def _peer_of(self, entrance: _Entrance, accepted: trio.socket.SocketType) -> Peer | None:
        """The other end of a connection, or None if it is refused at once; refusals are counted."""
        if not entrance.is_local:
            host = str(accepted.getpeername()[0])
            if self._insecure or self._peers.budget.is_spent:
                return Peer(host, None, trusted=self._insecure)
            return Peer(host, self._peers.peer_of(accepted).uid, trusted=False)
        peer = self._peers.peer_of(accepted)
        if peer.trusted or entrance.accepts_keys:
            return peer
        self.refusals.add(peer.refusal, **peer.log_context)
        return None

    async def _carry(self, connection: _Connection, accepted: trio.socket.SocketType) -> None:
        """Connect an accepted connection with its ZMQ socket, until one of them ends."""
        log.charge(f"connections from {origin(connection.peer.host, connection.peer.uid).network}")
        outer = trio.SocketStream(accepted)
        try:
            async with outer:
                with connection.scope:
                    if connection.peer.trusted:
                        await relay(outer, await connection.entrance.inlet.connect())
                    else:
                        await self._carry_keyed(connection, outer)
        except Exception as error:  # noqa: BLE001 - an error of one connection must not end the others
            self._note_failure(connection, error)
        finally:
            self._shaking.end(connection.domain)
            if connection.station:
                _less(self._admitted, connection.station)
            del self._connections[connection.domain]

    def _note_failure(self, connection: _Connection, error: Exception) -> None:
        """Log why a connection was not carried to its end."""
        causes = list(leaves(error))
        if all(isinstance(each, trio.BrokenResourceError) for each in causes):
            if not connection.station and not connection.is_refused:
                self._refuse(connection, FAILED)
            return
        reason = "; ".join(f"{type(each).__name__}: {each}" for each in causes)
        if all(isinstance(each, _ENDS) for each in causes):
            self._log.debug(
                "a connection was not carried", reason=reason, **connection.peer.log_context
            )
        else:
            self._failures.log(
                self._log.error,
                "connection closed by an error",
                reason=reason,
                exc_info=error,
                **connection.peer.log_context,
            )

    async def _carry_keyed(self, connection: _Connection, outer: trio.SocketStream) -> None:
        greeting = await self._shaken(connection, outer)
        if not greeting:
            return
        entrance = connection.entrance
        try:
            self._open()
            assert self._robot is not None
            if entrance.stations is not None:
                connection.socket = entrance.stations.make_socket()
            taker = connection.socket or entrance.socket
            if taker.closed:
                return
            secure(taker, self._robot, connection.domain)
            inlet = Inlet(taker)
        except (OSError, zmq.ZMQError, ConfigError, InstanceBusyError) as error:
            self._refuse(connection, UNUSABLE, trouble=str(error))
            if connection.socket is not None:
                connection.socket.close()
            return
        try:
            async with await inlet.connect() as inner:
                inlet.close()
                await self._introduce(outer, inner, greeting)
                async with trio.open_nursery() as nursery:
                    if connection.socket is not None:
                        nursery.start_soon(self._hear, connection, connection.socket)
                    await relay(outer, inner)
                    nursery.cancel_scope.cancel()
            if not connection.station and not connection.is_refused:
                self._refuse(connection, FAILED)
        finally:
            if connection.socket is not None:
                connection.socket.close()
            inlet.unbind()

    async def _hear(self, connection: _Connection, socket: Socket) -> None:
        assert connection.entrance.stations is not None
        with contextlib.suppress(trio.ClosedResourceError):
            await connection.entrance.stations.serve(socket, lambda: connection.station)

    async def _shaken(self, connection: _Connection, outer: trio.SocketStream) -> bytes:
        """The greeting of an end that wants to show a key; empty if it does not, which is told to it and counted."""
        room = min(
            MAX_HANDSHAKES, MAX_KEYED - self._admitted.total(), self._limiter.most // _SILENT_PART
        )
        if room <= 0:
            self._refuse(connection, CROWDED_STATIONS)
            return b""
        where = origin(connection.peer.host, connection.peer.uid)
        self._displace(
            self._shaking.begin(
                connection.domain, where, most=room, most_of_host=MAX_HANDSHAKES_PER_HOST
            ),
        )
        greeting = b""
        with trio.move_on_after(HANDSHAKE_TIMEOUT / 1000) as patience:
            await outer.send_all(zmtp.OPENING)
            while zmtp.is_opening(greeting) and len(greeting) < zmtp.GREETING_BYTES:
                data = await outer.receive_some(zmtp.GREETING_BYTES - len(greeting))
                if not data:
                    break
                greeting += data
        if patience.cancelled_caught:
            self._refuse(connection, SILENT)
        elif len(greeting) < zmtp.GREETING_BYTES:
            self._refuse(connection, NOT_ZMTP)
        elif zmtp.mechanism_of(greeting) != zmtp.CURVE:
            # Its ZMQ understands that, and says so to its user.
            await outer.send_all(zmtp.greeting(zmtp.CURVE, as_server=True)[len(zmtp.OPENING) :])
            await outer.send_eof()
            self._refuse(connection, NO_KEY)
        elif connection.entrance.is_local and not self.keyring.stations and not self._refresh():
            self._refuse(connection, NO_STATIONS)
        else:
            room = max(1, min(MAX_GREETED, self._limiter.most // _GREETED_PART))
            self._displace(self._shaking.greeted(connection.domain, most=room))
            return greeting
        return b""

    def _displace(self, domains: Iterable[bytes]) -> None:
        """End connections without a key, for others that need their room."""
        for each in domains:
            if (connection := self._connections.get(each)) is not None:
                self._refuse(connection, CROWDED)
                connection.scope.cancel()

    async def _introduce(
        self, outer: trio.SocketStream, inner: trio.SocketStream, greeting: bytes
    ) -> None:
        """Exchange the greetings of both ends, of which the outer has had the beginning of ours."""
        await inner.send_all(greeting)
        ours = b""
        while len(ours) < zmtp.GREETING_BYTES:
            data = await inner.receive_some(zmtp.GREETING_BYTES - len(ours))
            if not data:
                raise trio.BrokenResourceError
            ours += data
        await outer.send_all(ours[len(zmtp.OPENING) :])

    def _refuse(self, connection: _Connection, reason: str, **context: object) -> None:
        connection.is_refused = True
        self.refusals.add(reason, **connection.peer.log_context, **context)

    def admits(self, public: str, domain: bytes) -> str | None:
        """The name of the station with a public key (Z85), proved over the connection with a ZAP domain; counted and logged."""
        log.charge("")
        self._refresh()
        connection = self._connections.get(domain)
        if connection is None or connection.is_refused:
            return None
        station = self.keyring.station_of(public)
        if station is None:
            self._refuse(connection, UNKNOWN_KEY)
            return None
        if self._admitted[station] >= MAX_PER_STATION or connection.station:
            self._refuse(connection, CROWDED_STATION, station=station)
            return None
        self._shaking.end(connection.domain)
        self._admitted[station] += 1
        connection.public, connection.station = public, station
        self.counters.admitted += 1
        self._tell_once(connection)
        return station

    def _tell_once(self, connection: _Connection) -> None:
        """Log at the first time that a station connects from an address; each of its commands makes a connection or two."""
        log.charge(f"station {connection.station}")
        key = (connection.station, connection.peer.host)
        tell = self._log.debug if key in self._told else self._log.info
        tell("a station has connected", station=connection.station, **connection.peer.log_context)
        if len(self._told) < _TOLD_MAX:
            self._told.add(key)

    def _open(self) -> None:
        """Be ready for connections with a key.

        Raises:
            ConfigError: The robot's key cannot be read or made.
        """
        if self._robot is None:
            self._robot = self.keyring.robot()
        if self._zap is None:
            # Imported by a robot that is open to stations only: start-up time counts.
            from rt.access.zap import ZapHandler

            self._zap = ZapHandler(self.admits, self._context)
            if self._nursery is not None:
                self._nursery.start_soon(self._zap.run)

    async def _watch_keys(self) -> None:
        while True:
            self._refresh()
            self._failures.flush()
            # At a multiple of the interval, where other tasks of an idle process are due too.
            await trio.sleep(KEY_CHECK_INTERVAL - trio.current_time() % KEY_CHECK_INTERVAL)

    def _refresh(self) -> bool:
        """Look at the keys again; whether a station has one."""
        before = self.keyring.stations
        if self.keyring.refresh():
            after = self.keyring.stations
            if gone := sorted(name for name in before if after.get(name) != before[name]):
                self._log.warning("keys were revoked", stations=gone)
            if new := sorted(after.keys() - before.keys()):
                self._log.info("keys were added", stations=new)
            for each in list(self._connections.values()):
                if each.station and self.keyring.station_of(each.public) != each.station:
                    each.scope.cancel()
            self._tell_problems()
        return bool(self.keyring.stations)

    def _tell_problems(self) -> None:
        for problem in self.keyring.problems:
            if problem not in self._problems:
                self._log.error(problem)
        self._problems = self.keyring.problems


def _less(counts: Counter[str], key: str) -> None:
    """Count one less, and forget what is counted no more."""
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
