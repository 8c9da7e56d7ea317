"""The router: carries calls from clients to services and answers back.

A peer sends `[recipient, payload]`, the recipient gets `[sender, payload]`. Clients connect to the frontend, services to the
backend; a message may go across or stay on its side, and the names of services belong to the backend. The rules of this module:
whoever asks for what cannot be delivered is told at once; the router looks into a payload only for that; and nothing that a peer
sends or fails to read stops it for the others.
"""

import contextlib
import errno
import math
from collections.abc import Callable, Iterable, Sequence

import msgspec
import trio
import zmq

from rt import log
from rt.errors import RemoteProtocolError
from rt.protocol import rpc
from rt.remote.departures import Departures
from rt.remote.gate import Gate
from rt.remote.handler import unknown
from rt.remote.socket import CONNECTIONS, Socket, connection_event

BURST = 64
"""Messages of one side that are carried before the other side and the rest of the process have their turn."""

KNOWN_MAX = 256
"""Names of services that are kept to say the nearest one; beyond it the oldest is forgotten, which harms no delivery."""

SERVICE = b"-service"
"""How the names of services end, which peers of the frontend may not have."""

NAME_MAX = 255
"""The longest name of a peer in ZMQ, in bytes."""

RETURN_TIME = 1.0
"""How long a peer with a name of its own may be without a connection until it counts as gone, in s."""

GATHER_TIME = 0.05
"""Peers that go within this time are told of together, in s."""

COMPLAINT_INTERVAL = 1.0
"""Time between two log events about names that are used twice, in s."""

GONE_MAX = 1000
"""Identities in one message about peers that have gone."""

_OPTIONS: dict[int, int | bytes] = {
    # Say who is absent instead of dropping in silence.
    zmq.ROUTER_MANDATORY: 1,
    # A service that was killed and started again has its name back at once, not when its old connection is found dead.
    zmq.ROUTER_HANDOVER: 1,
    # A peer behind a radio that went away without a word is noticed after these ms.
    zmq.HEARTBEAT_IVL: 2000,
    zmq.HEARTBEAT_TIMEOUT: 6000,
    # Whoever connects and does not say in ZMQ's words who it is is shown out after these ms.
    zmq.HANDSHAKE_IVL: 5000,
}


class RouterCounters(msgspec.Struct):
    """What a router has done.

    Attributes:
        routed: Messages that went to their recipient.
        answered: Requests that were answered with an error because their recipient is absent or does not keep up.
        hellos: Empty payloads.
        malformed: Messages of the wrong number of frames, or for nobody and no message of the call protocol.
        dropped: Messages that could be neither delivered nor answered.
        gone: Peers whose messages were delivered, and who have gone; the services were told.
        takeovers: Names that were taken by a newer connection while the older one stood.
    """

    routed: int = 0
    answered: int = 0
    hellos: int = 0
    malformed: int = 0
    dropped: int = 0
    gone: int = 0
    takeovers: int = 0


class Router:
    """Carries messages between the peers of two ROUTER sockets.

    At the high-water mark of a recipient (1000 messages, see `rt.remote.socket`) messages to it are not kept: a request is
    answered with an error, everything else is dropped and counted. Of a peer the router keeps the number of its connection
    and its identity, and both only while the connection stands. Services are told who has gone, so that they stop working
    for nobody (`rpc.GONE`): at once, or after `RETURN_TIME` if it is a peer that has given itself a name, and may come back.
    When a service has gone, everybody else is told at once: it answers no call any more, even if it is started again.

    Args:
        frontends: Addresses for clients, e.g. `tcp://127.0.0.1:6000`.
        backends: Addresses for services.
        context: ZMQ context; by default the one of the process.
        logger: Where events go.
        gate: Lets in who may connect from the network to the frontend; without one everybody may.
    """

    def __init__(
        self,
        frontends: Iterable[str],
        backends: Iterable[str],
        *,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        logger: log.Logger | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.counters = RouterCounters()
        self.frontends = tuple(frontends)
        self.backends = tuple(backends)
        self._context = context
        self._gate = gate
        self._log = logger or log.get_logger()
        self._services: dict[bytes, None] = {}
        self._departures = Departures(self._tell_takeover)
        self._said_at = -math.inf
        self._leaving: list[bytes] = []
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Route until cancelled; started when every address is bound, `frontends` and `backends` being the real ones then.

        Raises:
            InstanceBusyError: An address is in use.
            ConfigError: An address cannot be bound.
        """
        with (
            Socket(zmq.ROUTER, options=_OPTIONS, context=self._context) as front,
            Socket(zmq.ROUTER, options=_OPTIONS, context=self._context) as back,
        ):
            front_events, back_events = front.monitor(CONNECTIONS), back.monitor(CONNECTIONS)
            if self._gate is not None:
                self.frontends = self._gate.bind(front, self.frontends)
            else:
                self.frontends = tuple([front.bind(address) for address in self.frontends])
            self.backends = tuple([back.bind(address) for address in self.backends])
            async with trio.open_nursery() as self._nursery:
                nursery = self._nursery
                nursery.start_soon(self._carry, front, front, back)
                nursery.start_soon(self._carry, back, front, back)
                nursery.start_soon(self._watch, front_events, front, back)
                nursery.start_soon(self._watch, back_events, front, back)
                task_status.started()

    async def _watch(self, events: Socket, front: Socket, back: Socket) -> None:
        """Note which connections are closed."""
        while True:
            states = dict([connection_event(await events.recv())])
            # To the last of them: a number whose connection was closed may already be that of another peer.
            with contextlib.suppress(trio.WouldBlock):
                while True:
                    states.update([connection_event(events.recv_nowait())])
            gone = self._departures.closed(number for number, stands in states.items() if not stands)
            if gone:
                self._take_leave(gone, front, back)

    def _take_leave(self, gone: Sequence[bytes], front: Socket, back: Socket) -> None:
        """Remember who has gone; however many they are, the services hear of it `1 / GATHER_TIME` times a second at most."""
        if not self._leaving and self._nursery is not None:
            self._nursery.start_soon(self._see_off, front, back)
        self._leaving.extend(gone)

    async def _see_off(self, front: Socket, back: Socket) -> None:
        await trio.sleep(GATHER_TIME)
        gone, self._leaving = self._leaving, []
        # Who called itself by a service's name at the frontend has not taken the service along.
        services = [each for each in gone if each in self._services and not self._is_there(each, back)]
        if services:
            self._tell(services, list(self._departures), front, back)
        self._dismiss([identity for identity in gone if identity.startswith(b"\0")], back)
        named = [identity for identity in gone if not identity.startswith(b"\0")]
        if named:
            await trio.sleep(RETURN_TIME)
            self._dismiss(
                [each for each in named if not (self._is_there(each, front) or self._is_there(each, back))], back
            )

    def _is_there(self, identity: bytes, side: Socket) -> bool:
        try:
            side.send_nowait((identity, b"", b""))
        except trio.WouldBlock:
            return True
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return False
        return True

    def _dismiss(self, gone: Sequence[bytes], back: Socket) -> None:
        """Tell the services of callers who have gone."""
        self.counters.gone += len(gone)
        self._tell(gone, list(self._services), back)

    def _tell_takeover(self, identity: bytes) -> None:
        """Say that a name has a newer connection: libzmq never hands on what comes over the older one, nor tells its end."""
        self.counters.takeovers += 1
        if trio.current_time() - self._said_at >= COMPLAINT_INTERVAL:
            self._said_at = trio.current_time()
            self._log.warning("a name was connected twice: only its newest connection is served", name=_text(identity))

    def _tell(self, gone: Sequence[bytes], peers: Sequence[bytes], *sides: Socket) -> None:
        for first in range(0, len(gone), GONE_MAX):
            payload = rpc.encode(rpc.Notification(rpc.GONE, list(gone[first : first + GONE_MAX])))
            for peer in peers:
                if not any(_offer(side, (peer, b"", payload)) for side in sides):
                    self.counters.dropped += 1
                    self._log.debug("a peer was not told who has gone", peer=_text(peer))

    async def _carry(self, source: Socket, front: Socket, back: Socket) -> None:
        while True:
            self._route(await source.recv(), source, front, back)
            with contextlib.suppress(trio.WouldBlock):
                for _ in range(BURST):
                    if not source.has_message():
                        break
                    self._route(source.recv_nowait(), source, front, back)

    def _route(self, frames: list[bytes], source: Socket, front: Socket, back: Socket) -> None:
        if len(frames) != 3:
            self.counters.malformed += 1
            return
        sender, recipient, payload = frames
        if not payload:
            self._greet(sender, source, back)
            return
        # With the name of a service a client could answer as one, and had its calls while it is started again.
        if sender == recipient or (source is front and sender.endswith(SERVICE)):
            self._answer(
                frames,
                source,
                lambda name: (
                    "a message cannot go to its sender"
                    if sender == recipient
                    else f"nobody but a service, which has the backend, may write to {name} as {_text(sender)}"
                ),
            )
            return
        for target in (back,) if recipient.endswith(SERVICE) else (front, back):
            try:
                target.send_nowait((recipient, sender, payload))
            except trio.WouldBlock:
                self._answer(frames, source, lambda name: f"{name} does not keep up with its messages")
                return
            except zmq.ZMQError as error:
                if error.errno != errno.EHOSTUNREACH:
                    raise
            else:
                self.counters.routed += 1
                before = self._departures.heard(source.source, sender)
                if before is not None:
                    self._take_leave([before], front, back)
                return
        self._services.pop(recipient, None)
        self._answer(frames, source, lambda name: unknown("service", name, map(_text, self._services)))

    def _greet(self, sender: bytes, source: Socket, back: Socket) -> None:
        """Answer a hello with a hello: now the peer knows that messages reach it."""
        self.counters.hellos += 1
        if source is back:
            if sender not in self._services and len(self._services) >= KNOWN_MAX:
                del self._services[next(iter(self._services))]
            self._services[sender] = None
            self._departures.heard(source.source, sender)
        self._reply(source, (sender, b"", b""))

    def _answer(self, frames: list[bytes], source: Socket, say: Callable[[str], str]) -> None:
        """Tell whoever asked why there is no answer; the sentence is made only if somebody wants it."""
        sender, recipient, payload = frames
        try:
            message = rpc.decode(payload)
        except RemoteProtocolError:
            self.counters.malformed += 1
            return
        if not isinstance(message, rpc.Request):
            self.counters.dropped += 1
            return
        # What is too long to be a name is not said back whole: the answer has to fit in a message.
        name = _text(recipient[:NAME_MAX])
        sentence = say(name)
        context = {"address": name, "method": message.method}
        if self._reply(source, (sender, recipient, rpc.encode(rpc.Response(message.id, (sentence, context), None)))):
            self.counters.answered += 1

    def _reply(self, source: Socket, frames: tuple[bytes, bytes, bytes]) -> bool:
        taken = _offer(source, frames)
        self.counters.dropped += not taken
        return taken


def _offer(side: Socket, frames: tuple[bytes, bytes, bytes]) -> bool:
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


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
