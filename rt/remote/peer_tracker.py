"""Tells those whom it concerns who has left a router: services of their callers, callers of their services.

The rules of this module: each side of a router has numbers of connections of its own, since that of
one that was closed is soon the number of another one, perhaps at the other side; and however many
peers go, nobody is told more than `1 / GATHER_TIME` times a second. Only peers that have announced
that they understand it are told.
"""

import contextlib
import errno
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import trio
import zmq

from rt import log
from rt.access.stations import StationSide
from rt.protocol import rpc
from rt.remote.disconnects import Disconnects
from rt.transport.counters import RouterCounters
from rt.transport.monitor import CONNECTIONS, parse_connection_event
from rt.transport.zmq_socket import Socket

RETURN_TIME = 1.0
"""How long a peer with a name of its own may be without a connection until it counts as gone, in s."""

BATCH_TIME = 0.05
"""Peers that go within this time are told of together, in s."""

LOG_INTERVAL = 1.0
"""Time between two log events about names that are used twice, in s."""

GONE_MAX = 1000
"""Identities in one message about peers that have gone."""


class PeerTracker:
    """Watches the connections of a router's two sockets. To be made before they are bound, so that no connection is missed.

    Args:
        front: Of the clients.
        back: Of the services.
        services: The names of the services that are known, as keys.
        counters: Those of the router.
        logger: Where events go.
        stations: The connections with a key, each with a socket of its own.
        public: The names by which others know peers that connect with a secret identity.

    Attributes:
        on_gone: Called with the name of each peer that has gone, or is about to come back.
    """

    def __init__(
        self,
        front: Socket,
        back: Socket,
        services: Mapping[bytes, object],
        counters: RouterCounters,
        logger: log.Logger,
        *,
        stations: StationSide | None = None,
        public: Mapping[bytes, bytes] = MappingProxyType({}),
    ) -> None:
        self.on_gone: Callable[[bytes], None] = lambda _: None
        self._back = back
        self._services = services
        self._counters = counters
        self._log = logger
        self._stations = stations
        self._public = public
        self._disconnects = {side: Disconnects(self._tell_takeover) for side in (front, back)}
        self._events = {side: side.monitor(CONNECTIONS) for side in (front, back)}
        # The connection that an announcement came over; -1 for stations and within this process.
        self._informed: dict[bytes, int] = {}
        self._informed_before: set[bytes] = set()  # of those that are leaving
        self._said_at = -math.inf
        self._leaving: list[bytes] = []
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        """How many connections are known."""
        return sum(map(len, self._disconnects.values()))

    def start(self, nursery: trio.Nursery) -> None:
        """Watch, as tasks of a nursery."""
        self._nursery = nursery
        for side, events in self._events.items():
            nursery.start_soon(self._watch, events, self._disconnects[side])

    def disconnects_of(self, side: Socket) -> Disconnects:
        """Where it is noted who speaks at a side; whom that says to be gone, `report_gone` is told of."""
        return self._disconnects[side]

    def announce(self, side: Socket | StationSide, identity: bytes) -> None:
        """Note that a peer understands `rpc.GONE` and wants it, for as long as its connection stands."""
        self._informed[identity] = side.source

    def report_gone(self, gone: Sequence[bytes]) -> None:
        """Tell of those who have gone, soon."""
        for identity in gone:
            self.on_gone(identity)
            if self._informed.pop(identity, None) is not None:
                self._informed_before.add(identity)
        if not self._leaving and self._nursery is not None:
            self._nursery.start_soon(self._notify_of_disconnects)
        self._leaving.extend(gone)

    async def _watch(self, events: Socket, disconnects: Disconnects) -> None:
        """Note which connections of one side are closed."""
        while True:
            states = dict([parse_connection_event(await events.recv())])
            # To the last of them: a number whose connection was closed may already be that of
            # another peer.
            with contextlib.suppress(trio.WouldBlock):
                while True:
                    states.update([parse_connection_event(events.recv_nowait())])
            gone = disconnects.closed(number for number, stands in states.items() if not stands)
            if gone:
                self.report_gone(gone)

    async def _notify_of_disconnects(self) -> None:
        await trio.sleep(BATCH_TIME)
        gone, self._leaving = self._leaving, []
        informed, self._informed_before = self._informed_before, set()
        # Who called itself by a service's name at the frontend has not taken the service along.
        services = [
            each for each in gone if each in self._services and not is_connected(each, self._back)
        ]
        if services:
            for side, disconnects in self._disconnects.items():
                self._tell(services, disconnects, side)
            if self._stations is not None:
                self._tell(services, self._stations, self._stations)
        self._dismiss([identity for identity in gone if identity.startswith(b"\0")])
        named = [identity for identity in gone if not identity.startswith(b"\0")]
        if named:
            await trio.sleep(RETURN_TIME)
            self._dismiss([each for each in named if not self._is_back(each, ask=each in informed)])

    def _understands(self, identity: bytes) -> bool:
        connection = self._informed.get(identity)
        # A newer connection of the same name may be another program.
        return connection is not None and (
            connection < 0
            or any(
                each.connection_of(identity) == connection for each in self._disconnects.values()
            )
        )

    def _is_back(self, identity: bytes, *, ask: bool) -> bool:
        """Whether a peer has spoken over a new connection, or has one; only a peer of rt is asked, which others would not expect."""
        if any(identity in disconnects for disconnects in self._disconnects.values()):
            return True
        if self._stations is not None and identity in self._stations:
            return True
        return ask and any(is_connected(identity, side) for side in self._disconnects)

    def _dismiss(self, gone: Sequence[bytes]) -> None:
        """Tell the services of callers who have gone."""
        self._counters.gone += len(gone)
        self._tell(gone, list(self._services), self._back)

    def _tell(
        self, gone: Sequence[bytes], peers: Iterable[bytes], side: Socket | StationSide
    ) -> None:
        for first in range(0, len(gone), GONE_MAX):
            names = [self._public.get(each, each) for each in gone[first : first + GONE_MAX]]
            payload = rpc.encode(rpc.Notification(rpc.GONE, names))
            for peer in peers:
                if self._understands(peer) and not try_send(side, (peer, b"", payload)):
                    self._counters.dropped += 1
                    self._log.debug("a peer was not told who has gone", peer=self._name(peer))

    def _tell_takeover(self, identity: bytes) -> None:
        """Say that a name has a newer connection: libzmq never hands on what comes over the older one, nor tells its end."""
        self._counters.takeovers += 1
        if trio.current_time() - self._said_at >= LOG_INTERVAL:
            self._said_at = trio.current_time()
            self._log.warning(
                "a name was connected twice: only its newest connection is served",
                name=self._name(identity),
            )

    def _name(self, identity: bytes) -> str:
        return self._public.get(identity, identity).decode(errors="backslashreplace")


def try_send(side: Socket | StationSide, frames: tuple[bytes, bytes, bytes]) -> bool:
    """Send, if the recipient is there and keeps up."""
    try:
        side.send_nowait(frames)
    except trio.WouldBlock:
        return False
    except zmq.ZMQError as error:
        if error.errno != errno.EHOSTUNREACH:
            raise
        return False
    return True


def is_connected(identity: bytes, side: Socket | StationSide) -> bool:
    """Whether a peer is connected, whether it keeps up or not; it hears a hello by that."""
    try:
        side.send_nowait((identity, b"", b""))
    except trio.WouldBlock:
        return True
    except zmq.ZMQError as error:
        if error.errno != errno.EHOSTUNREACH:
            raise
        return False
    return True
