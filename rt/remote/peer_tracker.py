"""Notification of disconnects at a router: of callers to services, and of services to callers.

Connection numbers are tracked for each side of the router separately, because the number of a
closed connection is soon reused, possibly on the other side.

Invariant: a peer gets at most `1 / BATCH_TIME` notifications a second, however many peers
disconnect, and only if it has announced that it understands them.
"""

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence

import trio
import zmq

from rt import log
from rt.access.station_sockets import StationSide
from rt.log.throttle import Throttle
from rt.protocol import rpc
from rt.remote.disconnects import Disconnects
from rt.transport.counters import RouterCounters
from rt.transport.zmq_socket import Socket, parse_event

RETURN_TIME = 1.0
"""Time within which a peer with a self-chosen name may reconnect before it counts as gone, in s."""

BATCH_TIME = 0.05
"""Time over which disconnects are collected into one notification, in s."""

LOG_INTERVAL = 1.0
"""Minimum time between log events about names that are connected twice, in s."""

GONE_MAX = 1000
"""Maximum number of identities in one notification."""

_CONNECTIONS = int(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)


class PeerTracker:
    """Observer of the connections of a router's two sockets.

    Create it before the sockets are bound, so that no connection is missed.

    Args:
        front: Socket of the clients.
        back: Socket of the services.
        stations: Connections with a key, each of which has its own socket.
        services: Names of the known services, as keys.
        counters: Counters of the router.
        logger: Logger for events.
        public: Public names of the peers that connect with a secret identity.
        return_time: Time within which a peer with a self-chosen name may reconnect, in s.

    Attributes:
        on_gone: Called with the name of each peer that disconnects, even if it may reconnect.
    """

    def __init__(
        self,
        front: Socket,
        back: Socket,
        stations: StationSide,
        services: Mapping[bytes, object],
        counters: RouterCounters,
        *,
        logger: log.Logger,
        public: Mapping[bytes, bytes],
        return_time: float = RETURN_TIME,
    ) -> None:
        self.on_gone: Callable[[bytes], None] = lambda _: None
        self._back = back
        self._services = services
        self._counters = counters
        self._log = logger
        self._stations = stations
        self._public = public
        self._return_time = return_time
        self._takeovers = Throttle(burst=1, interval=LOG_INTERVAL, clock=trio.current_time)
        self._disconnects = {side: Disconnects(self._log_takeover) for side in (front, back)}
        self._events = {side: side.monitor(_CONNECTIONS) for side in (front, back)}
        # The connection over which a peer has announced that it understands notifications; -1 for
        # stations and peers in this process.
        self._announced: dict[bytes, int] = {}
        self._announced_before: set[bytes] = set()  # of the peers in `_gone`
        self._gone: list[bytes] = []
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        """Return the number of tracked connections."""
        return sum(map(len, self._disconnects.values()))

    def start(self, nursery: trio.Nursery) -> None:
        """Start the tasks that watch the connections."""
        self._nursery = nursery
        for side, events in self._events.items():
            nursery.start_soon(self._watch, events, self._disconnects[side])

    def disconnects_of(self, side: Socket) -> Disconnects:
        """Return the map of a side's connections.

        The router records senders there, and passes returned identities to `report_gone`.
        """
        return self._disconnects[side]

    def announce(self, side: Socket | StationSide, identity: bytes) -> None:
        """Record that a peer wants `rpc.GONE` notifications over its current connection."""
        self._announced[identity] = side.source

    def report_gone(self, gone: Sequence[bytes]) -> None:
        """Notify the peers concerned of disconnects, within `BATCH_TIME` or the return time."""
        for identity in gone:
            self.on_gone(identity)
            if self._announced.pop(identity, None) is not None:
                self._announced_before.add(identity)
        if not self._gone and self._nursery is not None:
            self._nursery.start_soon(self._notify)
        self._gone.extend(gone)

    async def _watch(self, events: Socket, disconnects: Disconnects) -> None:
        """Remove the closed connections of one side."""
        while True:
            messages = [await events.recv()]
            # Read all events: a later one may say that another peer already uses the number.
            while events.has_message():
                messages.append(events.recv_nowait())
            newest = {number: event for event, number in map(parse_event, messages)}
            gone = disconnects.remove(
                number for number, event in newest.items() if event == zmq.EVENT_DISCONNECTED
            )
            if gone:
                self.report_gone(gone)

    async def _notify(self) -> None:
        await trio.sleep(BATCH_TIME)
        gone, self._gone = self._gone, []
        announced, self._announced_before = self._announced_before, set()
        # A frontend peer with the name of a service may have disconnected, not the service.
        services = [
            each for each in gone if each in self._services and not is_connected(each, self._back)
        ]
        if services:
            for side, disconnects in self._disconnects.items():
                self._send_gone(services, disconnects, side)
            self._send_gone(services, self._stations, self._stations)
        self._notify_services([identity for identity in gone if identity.startswith(b"\0")])
        named = [identity for identity in gone if not identity.startswith(b"\0")]
        if named:
            await trio.sleep(self._return_time)
            self._notify_services(
                [each for each in named if not self._is_back(each, ask=each in announced)]
            )

    def _understands(self, identity: bytes) -> bool:
        connection = self._announced.get(identity)
        # A newer connection with the same name may belong to another program.
        return connection is not None and (
            connection < 0
            or any(
                each.connection_of(identity) == connection for each in self._disconnects.values()
            )
        )

    def _is_back(self, identity: bytes, *, ask: bool) -> bool:
        """Return whether a peer has reconnected.

        Args:
            identity: The peer.
            ask: Whether to probe for a connection that has not sent a message, by sending a hello.
                Only for peers that have announced themselves: others do not expect a hello.
        """
        sides: list[Iterable[bytes]] = [*self._disconnects.values(), self._stations]
        if any(identity in side for side in sides):
            return True
        return ask and any(is_connected(identity, side) for side in self._disconnects)

    def _notify_services(self, gone: Sequence[bytes]) -> None:
        """Notify the services of callers that have disconnected."""
        self._counters.gone += len(gone)
        self._send_gone(gone, list(self._services), self._back)

    def _send_gone(
        self, gone: Sequence[bytes], peers: Iterable[bytes], side: Socket | StationSide
    ) -> None:
        for first in range(0, len(gone), GONE_MAX):
            names = [self._public.get(each, each) for each in gone[first : first + GONE_MAX]]
            payload = rpc.encode(rpc.Notification(rpc.GONE, names))
            for peer in peers:
                if self._understands(peer) and not try_send(side, (peer, b"", payload)):
                    self._counters.dropped += 1
                    self._log.debug("disconnect notification dropped", peer=self._name(peer))

    def _log_takeover(self, identity: bytes) -> None:
        """Log that a name has a newer connection.

        libzmq drops what arrives over the older connection, and does not report its end.
        """
        self._counters.takeovers += 1
        self._takeovers.log(
            self._log.warning,
            "name connected twice; only the newest connection is served",
            name=self._name(identity),
        )

    def _name(self, identity: bytes) -> str:
        return self._public.get(identity, identity).decode(errors="backslashreplace")


def try_send(
    side: Socket | StationSide, frames: tuple[bytes, bytes, bytes], *, if_full: bool = False
) -> bool:
    """Send a message; return False if the recipient is not connected, `if_full` at a full queue."""
    try:
        side.send_nowait(frames)
    except trio.WouldBlock:
        return if_full
    except zmq.ZMQError as error:
        if error.errno != errno.EHOSTUNREACH:
            raise
        return False
    return True


def is_connected(identity: bytes, side: Socket | StationSide) -> bool:
    """Return whether a peer is connected, even if its queue is full; sends it a hello."""
    return try_send(side, (identity, b"", b""), if_full=True)
