"""What a subscriber sees of a hub: its events, and whether it is there."""

import enum
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Self

import zmq

from rt.errors import RemoteProtocolError
from rt.logs.hub import QUEUE_EVENTS
from rt.protocol import logevent
from rt.transport.counters import Counters
from rt.transport.monitor import parse_event
from rt.transport.zmq_socket import Socket


class ConnectionChange(enum.Enum):
    """What became of the connection: it stands, it broke, nobody listens there, or the hub does not let this one in."""

    CONNECTED = "connected"
    LOST = "lost"
    REFUSED = "refused"
    DENIED = "denied"


_CHANGES: dict[int, ConnectionChange] = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: ConnectionChange.CONNECTED,
    zmq.EVENT_DISCONNECTED: ConnectionChange.LOST,
    zmq.EVENT_CONNECT_RETRIED: ConnectionChange.REFUSED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: ConnectionChange.DENIED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: ConnectionChange.DENIED,
}


# Who only listens would never notice that a radio is out of reach.
_ALIVE: Mapping[int, int | bytes] = {zmq.HEARTBEAT_IVL: 2000, zmq.HEARTBEAT_TIMEOUT: 4000}


class LogFeed:
    """A subscription to a hub; it connects again by itself. A context manager.

    Args:
        address: Where the hub publishes.
        levels: Those of which events are wanted.
        options: ZMQ options, e.g. for security.

    Attributes:
        counters: What came.
    """

    def __init__(
        self,
        address: str,
        levels: Collection[str],
        *,
        options: Mapping[int, int | bytes] | None = None,
    ) -> None:
        self._address = address
        self._levels = levels
        alive = _ALIVE if address.startswith("tcp:") else {}
        self._options = {
            **alive,
            zmq.RCVHWM: QUEUE_EVENTS,
            zmq.MAXMSGSIZE: logevent.MAX_EVENT,
            **(options or {}),
        }
        self._socket: Socket | None = None
        self._monitor: Socket | None = None
        self.counters = Counters()

    def __enter__(self) -> Self:
        self._socket = Socket(zmq.SUB, options=self._options)
        self.counters = self._socket.counters
        for level in self._levels:
            self._socket.subscribe(level.encode())
        events = 0
        for event in _CHANGES:
            events |= event
        self._monitor = self._socket.monitor(events)
        self._socket.connect(self._address)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._socket is not None
        self._socket.close()

    async def event(self) -> dict[str, Any]:
        """Wait for the next event; what is none is counted and passed over. A checkpoint; a cancel loses nothing."""
        assert self._socket is not None
        while True:
            frames = await self._socket.recv()
            if (event := self._decoded(frames)) is not None:
                return event

    def event_nowait(self) -> dict[str, Any]:
        """The next event that has already come.

        Raises:
            trio.WouldBlock: There is none.
        """
        assert self._socket is not None
        while True:
            if (event := self._decoded(self._socket.recv_nowait())) is not None:
                return event

    async def change(self) -> ConnectionChange:
        """Wait until something becomes of the connection."""
        assert self._monitor is not None
        while True:
            change = _CHANGES.get(parse_event(await self._monitor.recv())[0])
            if change is not None:
                return change

    def _decoded(self, frames: list[bytes]) -> dict[str, Any] | None:
        try:
            return logevent.decode(frames)
        except RemoteProtocolError:
            self.counters.malformed += 1
            return None
