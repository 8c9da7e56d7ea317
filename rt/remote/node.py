"""Nodes: what clients and services speak through, whatever carries it.

A node sends and receives pairs of a peer and a payload. The rule that lets one client and one
service work over everything: a node hides what its transport needs (frames, topics, host and port),
counts what it cannot use, and goes on.
"""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Protocol, Self

import trio
import zmq

from rt.access.authenticator import Authenticator
from rt.errors import ConfigError, LocalProtocolError
from rt.text import nearest
from rt.transport.counters import Counters
from rt.transport.zmq_socket import Socket


class Node(Protocol):
    """One end of a conversation; an async context manager that is opened once.

    Attributes:
        counters: What passed, also after the node was closed.
        routed: Whether a router is at the other end: peers have names, and a hello says that this
            end can be reached.
    """

    counters: Counters

    @property
    def routed(self) -> bool:
        """Whether a router is at the other end."""

    @property
    def display_address(self) -> str:
        """The addresses, for a person."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...

    async def send(self, peer: bytes, payload: bytes) -> None:
        """Send a payload to a peer."""

    async def post(self, peer: bytes, payload: bytes) -> None:
        """Send a payload to a peer, for whoever comes to a checkpoint soon anyway: gives way to other tasks only to wait."""

    async def recv(self) -> tuple[bytes, bytes]:
        """Wait for a payload; returns who sent it, and it."""


def check_not_opened(socket: object, *, closed: bool) -> None:
    """Refuse to open a node twice.

    Raises:
        trio.BusyResourceError: The node is open.
        trio.ClosedResourceError: It was open and is closed.
    """
    if closed:
        raise trio.ClosedResourceError("the node is closed; make a new one")
    if socket is not None:
        raise trio.BusyResourceError("the node is already open")


class SocketNode:
    """A node over a ZMQ socket: DEALER (peer is an identity), PUB and SUB (peer is the topic).

    Args:
        socket_type: `zmq.DEALER`, `zmq.PUB` or `zmq.SUB`.
        identity: How a router names a DEALER, 1 to 255 bytes, e.g. `device-service`. The newest
            connection of an identity takes it over from an older one, so two living processes may
            not share one; without any, the router makes one up.
        bindings: Addresses to bind, e.g. `tcp://127.0.0.1:6001` or `ipc:///run/rt/log`.
        connections: Addresses to connect to, now or as soon as they are bound.
        subscriptions: Topics of a SUB, as prefixes; none means nothing is received.
        options: ZMQ options, by number or by name (`SNDTIMEO`), over the defaults of
            `rt.transport.zmq_socket`.
        context: ZMQ context; by default the one of the process.
        gate: Lets in who may connect to a binding on the network; without one everybody may.

    Attributes:
        endpoints: The real addresses of the bindings, once the node is open (`tcp://127.0.0.1:*`
            takes a free port).

    Raises:
        ConfigError: An option's name is unknown, or an identity is none.
        ValueError: Another type of socket, or topics for one that is no SUB.
    """

    def __init__(
        self,
        socket_type: int,
        identity: bytes | str = b"",
        *,
        bindings: Iterable[str] = (),
        connections: Iterable[str] = (),
        subscriptions: Iterable[bytes | str] = (),
        options: Mapping[int, int | bytes] | Mapping[str, int | bytes] | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        if socket_type not in (zmq.DEALER, zmq.PUB, zmq.SUB):
            raise ValueError("a node is a DEALER, a PUB or a SUB")
        self.counters = Counters()
        self.identity = _bytes(identity)
        self.bindings = tuple(bindings)
        self.connections = tuple(connections)
        self.subscriptions = tuple(_bytes(topic) for topic in subscriptions)
        self.endpoints: tuple[str, ...] = ()
        self.socket_type = socket_type
        self._context = context
        self._authenticator = authenticator
        self.options = {_option(key): value for key, value in (options or {}).items()}
        if self.subscriptions and socket_type != zmq.SUB:
            raise ValueError("only a SUB has subscriptions")
        if len(self.identity) > 255 or self.identity.startswith(b"\0"):
            raise ConfigError(
                f"{self.identity[:40]!r} is no identity (1 to 255 bytes, the first not zero)"
            )
        self._socket: Socket | None = None

    @property
    def routed(self) -> bool:
        """Whether a router is at the other end."""
        return self.socket_type == zmq.DEALER

    @property
    def display_address(self) -> str:
        """The addresses, for a person."""
        return ", ".join(self.connections + (self.endpoints or self.bindings))

    async def __aenter__(self) -> Self:
        check_not_opened(self._socket, closed=self._socket is not None and self._socket.closed)
        options = dict(self.options)
        if self.routed:
            # Only onto a connection that stands: a command that waits for a router which comes back
            # later would be obeyed long after its caller has given up.
            options.setdefault(zmq.IMMEDIATE, 1)
        if self.identity:
            options.setdefault(zmq.ROUTING_ID, self.identity)
        socket = Socket(self.socket_type, options=options, context=self._context)
        try:
            for topic in self.subscriptions:
                socket.subscribe(topic)
            self.endpoints = self._bound(socket, self.bindings)
            for address in self.connections:
                socket.connect(address)
        except BaseException:
            socket.close()
            raise
        self._socket = socket
        self.counters = socket.counters
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def bind(self, address: str) -> str:
        """Bind the open node to one more address and return the real one.

        Raises:
            InstanceBusyError: Another program holds the address.
            ConfigError: It is no address of this machine, or may not be used.
            trio.ClosedResourceError: The node is not open.
        """
        (endpoint,) = self._bound(self._open(), (address,))
        self.bindings += (address,)
        self.endpoints += (endpoint,)
        return endpoint

    def connect(self, address: str) -> None:
        """Connect the open node to one more address, now or as soon as it is bound.

        Raises:
            ConfigError: It is no address.
            trio.ClosedResourceError: The node is not open.
        """
        self._open().connect(address)
        self.connections += (address,)

    def subscribe(self, topic: bytes | str) -> None:
        """Receive one more topic.

        Raises:
            LocalProtocolError: Only a SUB has subscriptions.
            trio.ClosedResourceError: The node is not open.
        """
        self._subscriber().subscribe(_bytes(topic))
        self.subscriptions += (_bytes(topic),)

    def unsubscribe(self, topic: bytes | str) -> None:
        """Receive a topic no more; what has already come is still received, and a topic that was not subscribed is no fault.

        Raises:
            LocalProtocolError: Only a SUB has subscriptions.
            trio.ClosedResourceError: The node is not open.
        """
        socket = self._subscriber()
        if _bytes(topic) in self.subscriptions:
            socket.unsubscribe(_bytes(topic))
            left = list(self.subscriptions)
            left.remove(_bytes(topic))
            self.subscriptions = tuple(left)

    def _subscriber(self) -> Socket:
        if self.socket_type != zmq.SUB:
            raise LocalProtocolError("only a SUB node has subscriptions")
        return self._open()

    async def send(self, peer: bytes, payload: bytes) -> None:
        """Send a payload to an identity or under a topic.

        A checkpoint. A DEALER waits while it has no connection or its high-water mark is reached,
        SNDTIMEO at most when that option is set; a PUB never waits, it drops for subscribers that
        do not keep up. A cancel leaves nothing sent.

        Raises:
            trio.TooSlowError: SNDTIMEO passed.
            LocalProtocolError: A SUB only receives.
            trio.ClosedResourceError: The node is not open.
        """
        if self.socket_type == zmq.SUB:
            raise LocalProtocolError("a SUB node only receives")
        await self._open().send((peer, payload))

    async def post(self, peer: bytes, payload: bytes) -> None:
        """Send like `send`, but give way to other tasks only when it has to wait; a cancel that stands is heeded.

        It saves the turn of the event loop that `send` takes after it has sent: a call would take
        four of them instead of three.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.send_nowait(peer, payload)
        except trio.WouldBlock:
            await self.send(peer, payload)

    def send_nowait(self, peer: bytes, payload: bytes) -> None:
        """Send at once or not at all; a PUB always can.

        Raises:
            trio.WouldBlock: A DEALER has no connection, or its high-water mark is reached.
            trio.ClosedResourceError: The node is not open.
        """
        self._open().send_nowait((peer, payload))

    async def recv(self) -> tuple[bytes, bytes]:
        """Wait for a payload; returns the sender's identity or the topic, and it.

        A checkpoint. A cancel loses nothing. A message of another number of frames than two is
        counted and passed over. A PUB receives nothing and waits for its cancel.

        Raises:
            trio.ClosedResourceError: The node is not open.
        """
        socket = self._open()
        if self.socket_type == zmq.PUB:
            await trio.sleep_forever()
        while True:
            frames = await socket.recv()
            if len(frames) == 2:
                return frames[0], frames[1]
            self.counters.malformed += 1

    def recv_nowait(self) -> tuple[bytes, bytes]:
        """Take a payload that has already come; see `recv`.

        Raises:
            trio.WouldBlock: No payload has come.
            trio.ClosedResourceError: The node is not open.
        """
        socket = self._open()
        while socket.has_message():
            frames = socket.recv_nowait()
            if len(frames) == 2:
                return frames[0], frames[1]
            self.counters.malformed += 1
        raise trio.WouldBlock

    def _bound(self, socket: Socket, addresses: tuple[str, ...]) -> tuple[str, ...]:
        if self._authenticator is not None:
            return self._authenticator.bind(socket, addresses)
        return tuple([socket.bind(address) for address in addresses])

    def _open(self) -> Socket:
        if self._socket is None:
            raise trio.ClosedResourceError("the node is not open yet")
        if self._socket.closed:
            raise trio.ClosedResourceError("the node is closed")
        return self._socket


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _option(key: int | str) -> int:
    if not isinstance(key, str):
        return key
    names = {option.name: option.value for option in zmq.SocketOption}
    if key.upper() in names:
        return int(names[key.upper()])
    raise ConfigError(f"{key} is no ZMQ option{nearest(key, names, cutoff=0.6)}", option=key)
