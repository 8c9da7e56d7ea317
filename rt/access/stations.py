"""The stations' side of a router: a ZMQ socket for each connection, and names that no other user can take.

A ROUTER lets the newest connection take a name over, whoever has made it and before anything of it
can be looked at. So a connection that proves a station's key has a DEALER socket of its own, which
knows no names, and rt names it: `blue/panel` where station blue calls itself `panel`, else a name
that nobody can address before it has spoken. Invariant: a name begins with the station whose key
the connection has proved.
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
"""How the names of services end."""
_UNNAMED = b"\0station/"
_CLAIM = re.compile(r"[A-Za-z0-9_.:@+-]{1,200}")


def station_of(name: bytes) -> str:
    """The station whose key a peer of the router has proved; empty for peers of the robot's own user.

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
    """Stands beside a router's two ROUTER sockets, and is used like one of them.

    Iterates over the names of the peers that are there.

    Args:
        options: ZMQ options of each connection's socket.
        context: ZMQ context; by default the one of the process.
        on_gone: Told the name of each peer that has gone.
    """

    source = -1

    def __init__(
        self,
        options: Mapping[int, int | bytes],
        *,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        on_gone: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self.on_gone = on_gone
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
        """The socket of one more connection, not bound yet."""
        return Socket(zmq.DEALER, options=self._options, context=self._context, names_peer=True)

    async def serve(self, socket: Socket, station: Callable[[], str]) -> None:
        """Hand on what comes over a connection until cancelled; then its name is free.

        Args:
            socket: Of `make_socket`.
            station: Tells whose key it has proved; called when the first message has come.
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
        """A name for a connection. The newest connection of a station has the name that it asks for."""
        if claim and (claim.endswith(SERVICE.decode()) or "/" in claim):
            self._refusals.add(
                "names of services and of other stations are not given",
                station=station,
                name=claim[:100],
            )
        elif is_new and _CLAIM.fullmatch(claim):
            return f"{station}/{claim}".encode()
        return _UNNAMED + f"{station}/{next(self._numbers)}".encode()

    def send_nowait(self, frames: tuple[bytes, bytes, bytes]) -> None:
        """Send to a peer by its name, as a mandatory ROUTER does.

        Raises:
            trio.WouldBlock: It does not keep up.
            zmq.ZMQError: EHOSTUNREACH when there is no such peer.
        """
        name, sender, payload = frames
        socket = self._sockets.get(name)
        if socket is None or socket.closed:
            raise zmq.ZMQError(errno.EHOSTUNREACH)
        socket.send_nowait((sender, payload))

    async def recv(self) -> list[bytes]:
        """Wait for a message; the first frame is the sender's name."""
        return await self._receive.receive()

    def recv_nowait(self) -> list[bytes]:
        """Take a message that has come.

        Raises:
            trio.WouldBlock: There is none.
        """
        return self._receive.receive_nowait()

    def has_message(self) -> bool:
        """Whether `recv_nowait` would return one."""
        return self._receive.statistics().tasks_waiting_send > 0

    def record(self, _connection: int, _identity: bytes) -> None:
        """Nothing to note: the end of a connection is seen by `serve`."""
