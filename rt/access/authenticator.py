"""The authenticator of a process, which accepts the TCP connections of its ZMQ sockets.

Who is admitted:

| address | this user and root | another user of this computer | another computer |
| --- | --- | --- | --- |
| loopback | without a key | with a station's key | - |
| network | with a station's key | with a station's key | with a station's key |
| network, `insecure` | without a key | without a key | without a key |

rt accepts connections itself, because libzmq cannot identify the user at the other end, close a
single connection or prevent the takeover of a name. Admitted connections reach the ZMQ socket
through an `Inlet`. Connections with a key are encrypted and authenticated by CURVE; libzmq asks the
ZAP handler (`rt.access.zap`) whether the key is valid.

Invariants: A connection is refused unless the ZAP handler admits it (ZAP_ENFORCE_DOMAIN). Each
keyed connection has its own ZAP domain, so that a proved key is known to belong to it.
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
from rt.access.handshakes import Handshakes, origin
from rt.access.inlet import Inlet, relay
from rt.access.keyring import KeyPair, Keyring
from rt.access.listener import ConnectionLimiter, Listener
from rt.access.peer import Peer, PeerTable
from rt.access.refusals import Refusals
from rt.access.station_key import StationKey
from rt.access.station_sockets import StationSide
from rt.config.network import is_open
from rt.errors import ConfigError, InstanceBusyError, leaves
from rt.log.throttle import Throttle
from rt.protocol import zmtp
from rt.transport.zmq_socket import LINGER, Socket

if TYPE_CHECKING:
    from rt.access.zap import ZapHandler


class Limits(msgspec.Struct, frozen=True):
    """Limits of the connections of an authenticator.

    A connection counts as a handshake until it has proved a key. Before its greeting arrives it
    takes three descriptors, afterwards six and one ZMQ socket, of which a context has 1023.

    Attributes:
        handshake_timeout: Time within which a peer has to prove its key, in ms.
        handshakes: Handshakes in total. A further one displaces another, see
            `rt.access.handshakes`.
        handshakes_per_host: Handshakes from one address, or by one user over loopback.
        greeted: Handshakes whose greeting has arrived.
        per_station: Connections of one station.
        keyed: Connections with a key, including handshakes.
    """

    handshake_timeout: int = 5000
    handshakes: int = 256
    handshakes_per_host: int = 32
    greeted: int = 64
    per_station: int = 64
    keyed: int = 512


LIMITS = Limits()
_SILENT_PART, _GREETED_PART = 7, 30
"""Divisors of the limiter's descriptors, so that handshakes take at most a third of them."""

KEY_CHECK_INTERVAL = 0.5
"""Time between checks of the key files, in s; a revoked station is disconnected within it."""

NO_KEY = "no key"
NOT_ZMTP = "not ZMTP 3"
NO_STATIONS = "another user of this computer, and no station has a key"
UNKNOWN_KEY = "unknown or revoked key"
FAILED = "closed before it proved a valid key; it may not know the robot's key"
SILENT = "handshake timed out"
CROWDED = "too many connections without a key"
CROWDED_STATION = "too many connections of its station"
CROWDED_STATIONS = "too many connections of stations"
UNUSABLE = "out of resources"

_LOGGED_MAX = 256
_EXPECTED_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, zmq.ZMQError)
"""Errors of a connection whose ZMQ socket is closed, or when descriptors are exhausted."""


def secure(socket: Socket, robot: KeyPair, domain: bytes, *, timeout: int) -> None:
    """Require a station's key on the addresses that a socket binds from now on.

    Args:
        socket: The socket. libzmq cannot revert this.
        robot: The robot's keys.
        domain: ZAP domain.
        timeout: Time limit of a handshake, in ms.
    """
    socket.set_option(zmq.CURVE_SERVER, 1)
    socket.set_option(zmq.CURVE_SECRETKEY, robot.secret.encode())
    socket.set_option(zmq.ZAP_DOMAIN, domain)
    # Otherwise, while no ZAP handler is bound, libzmq admits every client that knows the robot's
    # public key.
    socket.set_option(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.set_option(zmq.HANDSHAKE_IVL, timeout)


def curve_options(station_key: StationKey) -> dict[int, int | bytes]:
    """Return the ZMQ options of a station's socket."""
    return {
        zmq.CURVE_SERVERKEY: station_key.robot_public.encode(),
        zmq.CURVE_PUBLICKEY: station_key.public.encode(),
        zmq.CURVE_SECRETKEY: station_key.secret.encode(),
    }


class _Binding:
    """A TCP address of a ZMQ socket."""

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
    """A TCP connection.

    It outlives a cancel of the authenticator for a moment, so that sent messages still arrive.
    """

    def __init__(self, binding: _Binding, peer: Peer, domain: bytes) -> None:
        self.binding = binding
        self.peer = peer
        self.domain = domain
        self.scope = trio.CancelScope(shield=True)
        self.socket: Socket | None = None
        self.public = ""
        self.station = ""
        self.is_refused = False


class Authenticator:
    """Listener for ZMQ sockets that admits connections, and closes those of revoked stations.

    There is one for each ZMQ context.

    Args:
        keyring: Keys of the stations that may connect; refreshed while the authenticator runs.
        insecure: Whether addresses on the network need no key.
        context: ZMQ context; by default the one of the process.
        limits: Limits of connections.

    Attributes:
        admitted: Number of connections so far that have proved the key of a station.
        refusals: Counts of refused connections.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        insecure: bool = False,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self.limits = limits
        self.admitted = 0
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
        self._waiting: list[_Binding] = []
        self._nursery: trio.Nursery | None = None
        self._numbers = itertools.count(1)
        self._connections: dict[bytes, _Connection] = {}
        self._handshakes = Handshakes[bytes]()
        self._connected: Counter[str] = Counter()
        self._logged: set[tuple[str, str]] = set()
        self._failures = Throttle(clock=trio.current_time)
        self._problems: tuple[str, ...] = ()
        keyring.refresh()
        self._log_problems()

    def requires_key(self, address: str) -> bool:
        """Return whether an address requires a key."""
        return not self._insecure and is_open(address)

    def bind(
        self,
        socket: Socket,
        addresses: Iterable[str],
        *,
        stations: StationSide | None = None,
        accepts_keys: bool = True,
    ) -> tuple[str, ...]:
        """Bind a socket to addresses; return the actual ones.

        Args:
            socket: The socket.
            addresses: Addresses to listen at.
            stations: For a ROUTER, serves the connections with a key; other sockets serve them
                themselves.
            accepts_keys: Whether a key admits another user of this computer.

        Raises:
            InstanceBusyError: An address is in use.
            ConfigError: An address cannot be bound, or the robot's key cannot be read or created.
        """
        endpoints = []
        for address in addresses:
            if not address.startswith("tcp://"):
                # Other users may be able to open a socket file, and can always open an abstract
                # socket.
                for uid in sorted({0, os.geteuid()}) if address.startswith("ipc://") else ():
                    socket.set_option(zmq.IPC_FILTER_UID, uid)
                endpoints.append(socket.bind(address))
                continue
            if self.requires_key(address):
                self._open()
            binding = _Binding(socket, address, self._inlet_of(socket), stations)
            binding.accepts_keys = accepts_keys
            self._limiter.add(binding.listener)
            endpoints.append(binding.listener.endpoint)
            if self._nursery is None:
                self._waiting.append(binding)
            else:
                self._nursery.start_soon(self._serve, binding)
        return tuple(endpoints)

    def release(self, socket: Socket) -> None:
        """Close the stations' connections to a closed socket, after sent messages have arrived."""
        for each in list(self._connections.values()):
            if each.binding.socket is socket and each.socket is not None:
                each.socket.close()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the bound addresses until cancelled; then close them, and soon the connections."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    for binding in self._waiting:
                        nursery.start_soon(self._serve, binding)
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
        """Return the inlet for connections without a key; created before the socket is secured."""
        if socket not in self._inlets:
            for closed in [each for each in self._inlets if each.closed]:
                self._inlets.pop(closed).close()
            try:
                self._inlets[socket] = Inlet(socket)
            except OSError as error:
                raise ConfigError(
                    f"cannot create a socket for TCP connections: {error.strerror or error}; "
                    "make /tmp writable"
                ) from None
        return self._inlets[socket]

    async def _serve(self, binding: _Binding) -> None:
        """Accept the connections of one address."""
        while True:
            while binding.is_local and (wait := self._peers.budget.wait):  # noqa: ASYNC110 - no event
                await trio.sleep(wait)
            accepted = await binding.listener.accept()
            self._limiter.check()
            try:
                peer = self._peer_of(binding, accepted)
            except OSError:  # already closed
                peer = None
            if peer is None or self._nursery is None:
                accepted.close()
                continue
            connection = _Connection(binding, peer, b"rt-%d" % next(self._numbers))
            self._connections[connection.domain] = connection
            self._nursery.start_soon(self._handle, connection, accepted)

    def _peer_of(self, binding: _Binding, accepted: trio.socket.SocketType) -> Peer | None:
        """Return the peer of a connection; count it and return None if it is refused at once."""
        if not binding.is_local:
            host = str(accepted.getpeername()[0])
            if self._insecure or self._peers.budget.is_spent:
                return Peer(host, None, trusted=self._insecure)
            return Peer(host, self._peers.peer_of(accepted).uid, trusted=False)
        peer = self._peers.peer_of(accepted)
        if peer.trusted or binding.accepts_keys:
            return peer
        self.refusals.add(peer.refusal, **peer.log_context)
        return None

    async def _handle(self, connection: _Connection, accepted: trio.socket.SocketType) -> None:
        """Relay a connection to its ZMQ socket until either end closes."""
        log.bind_source(
            f"connections from {origin(connection.peer.host, connection.peer.uid).network}"
        )
        outer = trio.SocketStream(accepted)
        try:
            async with outer:
                with connection.scope:
                    if connection.peer.trusted:
                        await relay(outer, await connection.binding.inlet.connect())
                    else:
                        await self._handle_keyed(connection, outer)
        except Exception as error:  # noqa: BLE001 - must not end other connections
            self._log_failure(connection, error)
        finally:
            self._handshakes.end(connection.domain)
            if connection.station:
                self._connected[connection.station] -= 1
            del self._connections[connection.domain]

    def _log_failure(self, connection: _Connection, error: Exception) -> None:
        """Log the error that closed a connection."""
        causes = list(leaves(error))
        if all(isinstance(each, trio.BrokenResourceError) for each in causes):
            if not connection.station and not connection.is_refused:
                self._refuse(connection, FAILED)
            return
        reason = "; ".join(f"{type(each).__name__}: {each}" for each in causes)
        if all(isinstance(each, _EXPECTED_ERRORS) for each in causes):
            self._log.debug("connection closed", reason=reason, **connection.peer.log_context)
        else:
            self._failures.log(
                self._log.error,
                "connection closed by an error",
                reason=reason,
                exc_info=error,
                **connection.peer.log_context,
            )

    async def _handle_keyed(self, connection: _Connection, outer: trio.SocketStream) -> None:
        greeting = await self._read_greeting(connection, outer)
        if not greeting:
            return
        binding = connection.binding
        try:
            self._open()
            assert self._robot is not None
            if binding.stations is not None:
                connection.socket = binding.stations.make_socket()
            target = connection.socket or binding.socket
            if target.closed:
                return
            timeout = self.limits.handshake_timeout
            secure(target, self._robot, connection.domain, timeout=timeout)
            inlet = Inlet(target)
        except (OSError, zmq.ZMQError, ConfigError, InstanceBusyError) as error:
            self._refuse(connection, UNUSABLE, error=str(error))
            if connection.socket is not None:
                connection.socket.close()
            return
        try:
            async with await inlet.connect() as inner:
                inlet.close()
                await self._exchange_greetings(outer, inner, greeting)
                async with trio.open_nursery() as nursery:
                    if connection.socket is not None:
                        nursery.start_soon(self._serve_station, connection, connection.socket)
                    await relay(outer, inner)
                    nursery.cancel_scope.cancel()
            if not connection.station and not connection.is_refused:
                self._refuse(connection, FAILED)
        finally:
            if connection.socket is not None:
                connection.socket.close()
            inlet.unbind()

    async def _serve_station(self, connection: _Connection, socket: Socket) -> None:
        assert connection.binding.stations is not None
        with contextlib.suppress(trio.ClosedResourceError):
            await connection.binding.stations.serve(socket, lambda: connection.station)

    async def _read_greeting(self, connection: _Connection, outer: trio.SocketStream) -> bytes:
        """Return the greeting of a peer that uses CURVE; refuse any other and return nothing."""
        limits = self.limits
        room = min(
            limits.handshakes,
            limits.keyed - self._connected.total(),
            self._limiter.limit // _SILENT_PART,
        )
        if room <= 0:
            self._refuse(connection, CROWDED_STATIONS)
            return b""
        where = origin(connection.peer.host, connection.peer.uid)
        self._displace(
            self._handshakes.begin(
                connection.domain, where, limit=room, host_limit=limits.handshakes_per_host
            )
        )
        greeting = b""
        with trio.move_on_after(limits.handshake_timeout / 1000) as scope:
            await outer.send_all(zmtp.OPENING)
            while zmtp.is_opening(greeting) and len(greeting) < zmtp.GREETING_BYTES:
                data = await outer.receive_some(zmtp.GREETING_BYTES - len(greeting))
                if not data:
                    break
                greeting += data
        if scope.cancelled_caught:
            self._refuse(connection, SILENT)
        elif len(greeting) < zmtp.GREETING_BYTES:
            self._refuse(connection, NOT_ZMTP)
        elif zmtp.mechanism_of(greeting) != zmtp.CURVE:
            # Its libzmq reports the mismatch to its user.
            await outer.send_all(zmtp.greeting(zmtp.CURVE, as_server=True)[len(zmtp.OPENING) :])
            await outer.send_eof()
            self._refuse(connection, NO_KEY)
        elif connection.binding.is_local and not self.keyring.stations and not self._refresh():
            self._refuse(connection, NO_STATIONS)
        else:
            room = max(1, min(limits.greeted, self._limiter.limit // _GREETED_PART))
            self._displace(self._handshakes.greeted(connection.domain, limit=room))
            return greeting
        return b""

    def _displace(self, domains: Iterable[bytes]) -> None:
        """Close handshakes that are displaced by new ones."""
        for each in domains:
            if (connection := self._connections.get(each)) is not None:
                self._refuse(connection, CROWDED)
                connection.scope.cancel()

    async def _exchange_greetings(
        self, outer: trio.SocketStream, inner: trio.SocketStream, greeting: bytes
    ) -> None:
        """Exchange the greetings of both ends; the outer end has the opening of ours already."""
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
        """Return the station that a connection has authenticated as, or None; count and log it.

        Args:
            public: Proved public key, in Z85.
            domain: ZAP domain of the connection.
        """
        log.bind_source("")
        self._refresh()
        connection = self._connections.get(domain)
        if connection is None or connection.is_refused:
            return None
        station = self.keyring.station_of(public)
        if station is None:
            self._refuse(connection, UNKNOWN_KEY)
            return None
        if self._connected[station] >= self.limits.per_station or connection.station:
            self._refuse(connection, CROWDED_STATION, station=station)
            return None
        self._handshakes.end(connection.domain)
        self._connected[station] += 1
        connection.public, connection.station = public, station
        self.admitted += 1
        self._log_connected(connection)
        return station

    def _log_connected(self, connection: _Connection) -> None:
        """Log a connection of a station; at info level only the first from an address."""
        log.bind_source(f"station {connection.station}")
        key = (connection.station, connection.peer.host)
        write = self._log.debug if key in self._logged else self._log.info
        write("station connected", station=connection.station, **connection.peer.log_context)
        if len(self._logged) < _LOGGED_MAX:
            self._logged.add(key)

    def _open(self) -> None:
        """Prepare for connections with a key.

        Raises:
            ConfigError: The robot's key cannot be read or created.
        """
        if self._zap is None:
            # Imported here because most robots do not need it, and start-up time counts.
            from rt.access.zap import ZapHandler

            self._robot = self.keyring.robot()
            self._zap = ZapHandler(self.admits, self._context)
            if self._nursery is not None:
                self._nursery.start_soon(self._zap.run)

    async def _watch_keys(self) -> None:
        while True:
            self._refresh()
            self._failures.flush()
            # At a multiple of the interval, to coincide with wakeups of other tasks.
            await trio.sleep(KEY_CHECK_INTERVAL - trio.current_time() % KEY_CHECK_INTERVAL)

    def _refresh(self) -> bool:
        """Reload changed keys; return whether any station has a key."""
        before = self.keyring.stations
        if self.keyring.refresh():
            after = self.keyring.stations
            if revoked := sorted(name for name in before if after.get(name) != before[name]):
                self._log.warning("keys revoked", stations=revoked)
            if added := sorted(after.keys() - before.keys()):
                self._log.info("keys added", stations=added)
            for each in list(self._connections.values()):
                if each.station and self.keyring.station_of(each.public) != each.station:
                    each.scope.cancel()
            self._log_problems()
        return bool(self.keyring.stations)

    def _log_problems(self) -> None:
        for problem in self.keyring.problems:
            if problem not in self._problems:
                self._log.error(problem)
        self._problems = self.keyring.problems
