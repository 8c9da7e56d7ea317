"""A subscription to a log hub: its events and the state of the connection."""

import enum
from collections.abc import Collection, Mapping
from typing import Any, Self

import zmq

from rt.errors import RemoteProtocolError
from rt.logs.hub import QUEUE_EVENTS
from rt.protocol import logevent
from rt.transport.zmq_socket import Socket, parse_event


class ConnectionChange(enum.Enum):
    """A change of the connection.

    Attributes:
        CONNECTED: The connection is established.
        LOST: The connection was lost.
        REFUSED: No process listens at the address.
        DENIED: The hub does not admit this subscriber.
    """

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


# A subscriber sends nothing, so without heartbeats it would never notice a lost radio link.
_HEARTBEATS: Mapping[int, int | bytes] = {zmq.HEARTBEAT_IVL: 2000, zmq.HEARTBEAT_TIMEOUT: 4000}


class LogFeed:
    """A subscription to a hub for the duration of a ``with`` block; it reconnects automatically.

    Args:
        address: Address at which the hub publishes.
        levels: Levels of the wanted events.
        options: ZMQ options, such as those for security.

    Attributes:
        counters: Counters of received messages.
    """

    def __init__(
        self,
        address: str,
        levels: Collection[str],
        *,
        options: Mapping[int, int | bytes] | None = None,
    ) -> None:
        heartbeats = _HEARTBEATS if address.startswith("tcp:") else {}
        self._socket = Socket(
            zmq.SUB,
            options={
                **heartbeats,
                zmq.RCVHWM: QUEUE_EVENTS,
                zmq.MAXMSGSIZE: logevent.MAX_EVENT,
                **(options or {}),
            },
        )
        self.counters = self._socket.counters
        for level in levels:
            self._socket.subscribe(level.encode())
        self._monitor = self._socket.monitor(sum(_CHANGES))
        self._address = address

    def __enter__(self) -> Self:
        self._socket.connect(self._address)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    async def event(self) -> dict[str, Any]:
        """Return the next event; skip and count malformed messages.

        A checkpoint; no event is lost if cancelled.
        """
        while True:
            frames = await self._socket.recv()
            if (event := self._decoded(frames)) is not None:
                return event

    def event_nowait(self) -> dict[str, Any]:
        """Return the next event that was already received.

        Raises:
            trio.WouldBlock: There is none.
        """
        while True:
            if (event := self._decoded(self._socket.recv_nowait())) is not None:
                return event

    async def change(self) -> ConnectionChange:
        """Return the next change of the connection. A checkpoint."""
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
