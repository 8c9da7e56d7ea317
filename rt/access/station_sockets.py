"""The stations' side of a router: one ZMQ socket for each connection, with authenticated names.

In a ROUTER, the newest connection takes over a name before it can be checked. Therefore each
connection with a key has its own DEALER socket, and rt assigns its name: `blue/panel` if station
blue calls itself `panel`, else a generated name.

Invariant: a name begins with the station whose key the connection has proved.
"""

import errno
import itertools
import re
from collections.abc import Callable, Iterator, Mapping

import trio
import zmq

from rt.access.refusals import Refusals
from rt.transport.zmq_socket import Socket

SERVICE = b"-service"
"""Suffix of the names of services."""
_UNNAMED = b"\0station/"
_CLAIM = re.compile(r"[A-Za-z0-9_.:@+-]{1,200}")


def station_of(name: bytes) -> str:
    """Return the authenticated station of a peer's name; empty for peers of the robot's user.

    Examples:
        >>> station_of(b"blue/panel"), station_of(b"broker-client")
        ('blue', '')
    """
    if name.startswith(_UNNAMED):
        name = name.removeprefix(_UNNAMED)
    elif name.startswith(b"\0"):
        return ""
    station, slash, _ = name.partition(b"/")
    return station.decode(errors="replace") if slash else ""


class StationSide:
    """The connections of stations, with the interface of a ROUTER socket.

    Iterates over the names of the connected peers.

    Args:
        options: ZMQ options of each connection's socket.
        context: ZMQ context; by default the one of the process.

    Attributes:
        on_gone: Called with the name of each peer that disconnects.
    """

    source = -1

    def __init__(
        self,
        options: Mapping[int, int | bytes],
        *,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.on_gone: Callable[[bytes], None] = lambda _: None
        self._options = options
        self._context = context
        self._sockets: dict[bytes, Socket] = {}
        self._numbers = itertools.count(1)
        self._send, self._receive = trio.open_memory_channel[list[bytes]](0)
        self._refusals = Refusals("station claimed a reserved name")

    def __len__(self) -> int:
        return len(self._sockets)

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._sockets))

    def make_socket(self) -> Socket:
        """Create the socket of a new connection, not yet bound."""
        return Socket(zmq.DEALER, options=self._options, context=self._context, names_peer=True)

    async def serve(self, socket: Socket, station: Callable[[], str]) -> None:
        """Receive from a connection until cancelled; then release its name.

        Args:
            socket: A socket from `make_socket`.
            station: Returns the authenticated station; called after the first message.
        """
        name = b""
        try:
            while True:
                frames = await socket.recv()
                if self._sockets.get(name) is not socket:
                    name = self._name(station(), socket.peer_identity, is_new=not name)
                    self._sockets[name] = socket
                await self._send.send([name, *frames])
        finally:
            if self._sockets.get(name) is socket:
                del self._sockets[name]
                self.on_gone(name)

    def _name(self, station: str, claim: str, *, is_new: bool) -> bytes:
        """Return a connection's name; the newest connection gets the name that it claims."""
        if claim and (claim.endswith(SERVICE.decode()) or "/" in claim):
            self._refusals.add(
                "name of a service or of another station", station=station, name=claim[:100]
            )
        elif is_new and _CLAIM.fullmatch(claim):
            return f"{station}/{claim}".encode()
        return _UNNAMED + f"{station}/{next(self._numbers)}".encode()

    def send_nowait(self, frames: tuple[bytes, bytes, bytes]) -> None:
        """Send to a peer by its name, like a mandatory ROUTER.

        Raises:
            trio.WouldBlock: The peer's queue is full.
            zmq.ZMQError: EHOSTUNREACH if the peer is not connected.
        """
        name, sender, payload = frames
        socket = self._sockets.get(name)
        if socket is None or socket.closed:
            raise zmq.ZMQError(errno.EHOSTUNREACH)
        socket.send_nowait((sender, payload))

    async def recv(self) -> list[bytes]:
        """Wait for a message, whose first frame is the sender's name."""
        return await self._receive.receive()

    def recv_nowait(self) -> list[bytes]:
        """Return a message that has already arrived.

        Raises:
            trio.WouldBlock: No message has arrived.
        """
        return self._receive.receive_nowait()

    def has_message(self) -> bool:
        """Return whether `recv_nowait` would return a message."""
        return self._receive.statistics().tasks_waiting_send > 0

    def record(self, _connection: int, _identity: bytes) -> None:
        """Do nothing: `serve` reports disconnects."""
