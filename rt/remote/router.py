"""The router: carries calls from clients to services and answers back.

A peer sends `[recipient, payload]`, the recipient gets `[sender, payload]`. Clients connect to the frontend, services to the
backend; a message may go across or stay on its side, and the names of services belong to the backend. The rules of this module:
whoever asks for what cannot be delivered is told at once; the router looks into a payload only for that; and nothing that a peer
sends or fails to read stops it for the others.
"""

import contextlib
import errno
import math
import os
from collections.abc import Callable, Iterable, Mapping

import trio
import zmq

from rt import log
from rt.errors import RemoteProtocolError
from rt.protocol import rpc
from rt.remote.counters import RouterCounters
from rt.remote.farewell import Farewell, offer
from rt.remote.gate import Gate
from rt.remote.handler import unknown
from rt.remote.quota import STATION, Quota
from rt.remote.socket import Socket
from rt.remote.stations import SERVICE, StationSide, station_of
from rt.text import clip

URGENT_BYTES = 64
"""The longest message that can be a call of `Router.at_once`."""
BURST = 64
"""Messages of one side that are carried before the other side and the rest of the process have their turn."""

KNOWN_MAX = 256
"""Names of services that are kept to say the nearest one; beyond it the oldest is forgotten, which harms no delivery."""

OWN_SERVICES = frozenset({b"broker-service", b"device-service", b"executor-service"})
"""Services of rt's own processes, which are there, or will be, in every robot."""

_RESERVED = b"\x01"
"""What the identities of reserved names begin with, see `Router.reserve`."""

COMPLAINT_INTERVAL = 1.0
"""Least time between two log events about reserved names, in s."""

NAME_MAX = 255
"""The longest name of a peer in ZMQ, in bytes."""

_CONNECTION_OPTIONS: dict[int, int | bytes] = {
    # A peer behind a radio that went away without a word is noticed after these ms.
    zmq.HEARTBEAT_IVL: 2000,
    zmq.HEARTBEAT_TIMEOUT: 6000,
    # Whoever connects and does not say in ZMQ's words who it is is shown out after these ms.
    zmq.HANDSHAKE_IVL: 5000,
}
_OPTIONS: dict[int, int | bytes] = {
    **_CONNECTION_OPTIONS,
    # Say who is absent instead of dropping in silence.
    zmq.ROUTER_MANDATORY: 1,
    # A service that was killed and started again has its name back at once, not when its old connection is found dead. All
    # peers of these sockets belong to this user: those of stations have sockets of their own.
    zmq.ROUTER_HANDOVER: 1,
}
_NO_HEARTBEAT: dict[int, int | bytes] = {zmq.HEARTBEAT_IVL: 0}
"""For a socket that only processes of this computer connect to: the kernel tells when one of them has ended."""


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
        gate: Lets in who may connect over TCP; without one everybody may. What comes with a station's key is named after the
            station, see `rt.remote.stations`.
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
        self._reserved: dict[bytes, bytes] = {}
        self._public: dict[bytes, bytes] = {}
        self._complained_at = -math.inf
        self._services: dict[bytes, None] = {}
        self._ended: dict[bytes, None] = {}
        self._quota = Quota()
        self._quota_of_station = Quota(STATION)
        self._farewell: Farewell | None = None
        self._at_once: dict[bytes, Mapping[str, Callable[[], None]]] = {}
        self._targets: tuple[StationSide | Socket, ...] = ()

    def reserve(self, service: str) -> bytes:
        """Reserve the name of a service of this process, and return the identity with which that service connects.

        Nothing else can answer under the name: processes of the robot's user may connect to the backend, and team code is one. The
        identity is a secret of this process.
        """
        name = service.encode()
        identity = self._reserved[name] = _RESERVED + os.urandom(16).hex().encode()
        self._public[identity] = name
        return identity

    def at_once(self, service: str, calls: Mapping[str, Callable[[], None]]) -> None:
        """Have functions of this process called as soon as the router reads a call that stops the robot.

        The call is carried to its service all the same, which answers it. But it may wait there behind many others, and at the
        high-water mark of the service it is refused.

        Args:
            service: The name of the service.
            calls: By the names of methods without arguments. A function may be called for a call that is then refused; it returns at
                once and raises nothing.
        """
        self._at_once[service.encode()] = dict(calls)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Route until cancelled; started when every address is bound, `frontends` and `backends` being the real ones then.

        Raises:
            InstanceBusyError: An address is in use.
            ConfigError: An address cannot be bound.
        """
        quiet = _NO_HEARTBEAT if all(each.startswith("ipc://") for each in self.backends) else {}
        with (
            Socket(zmq.ROUTER, options=_OPTIONS, context=self._context) as front,
            Socket(zmq.ROUTER, options=_OPTIONS | quiet, context=self._context) as back,
        ):
            stations = StationSide(_CONNECTION_OPTIONS, context=self._context)
            farewell = self._farewell = Farewell(
                front, back, self._services, self.counters, self._log, stations=stations, public=self._public
            )
            farewell.on_gone = self._quota.forget
            stations.on_gone = lambda name: farewell.take_leave([name])
            if self._gate is not None:
                self.frontends = self._gate.bind(front, self.frontends, stations=stations)
                self.backends = self._gate.bind(back, self.backends, takes_keys=False)
            else:
                self.frontends = tuple([front.bind(address) for address in self.frontends])
                self.backends = tuple([back.bind(address) for address in self.backends])
            self._targets = (stations, front, back)
            try:
                async with trio.open_nursery() as nursery:
                    farewell.start(nursery)
                    for source in self._targets:
                        nursery.start_soon(self._carry, source, front, back, farewell)
                    task_status.started()
            finally:
                stations.on_gone = lambda _: None
                if self._gate is not None:
                    self._gate.release(front)

    async def _carry(self, source: Socket | StationSide, front: Socket, back: Socket, farewell: Farewell) -> None:
        heard = source.heard if isinstance(source, StationSide) else farewell.departures_of(source).heard
        while True:
            frames = await source.recv()
            with contextlib.suppress(trio.WouldBlock):
                for left in range(BURST, -1, -1):
                    sender = self._route(frames, source, front, back)
                    if sender is not None and (gone := heard(source.source, sender)) is not None:
                        farewell.take_leave([gone])
                    if not left or not source.has_message():
                        break
                    frames = source.recv_nowait()

    def _route(self, frames: list[bytes], source: Socket | StationSide, front: Socket, back: Socket) -> bytes | None:
        """Carry a message; returns its sender if others have to know when that one goes."""
        if len(frames) != 3:
            self.counters.malformed += 1
            return None
        sender, recipient, payload = frames
        if source is back and sender in self._reserved:
            self._complain(sender)
            return None
        if (not payload or not recipient) and (wanted := rpc.understood(payload)) is not None:
            if self._farewell is not None and rpc.GONE in wanted:
                self._farewell.announce(source, sender)
            self._greet(sender, source, back)
            return sender
        refusal = _refusal(sender, recipient, is_front=source is front)
        if not refusal and len(payload) <= URGENT_BYTES and (calls := self._at_once.get(recipient)) is not None:
            _call_at_once(calls, payload)
        if refusal or (flood := self._flooded(sender, recipient, is_service=source is back)):
            self._answer(frames, source, lambda name: refusal or _FLOODED.format(name, flood))
            return None if refusal else sender
        return sender if self._deliver(frames, source, back) else None

    def _deliver(self, frames: list[bytes], source: Socket | StationSide, back: Socket) -> bool:
        """Hand a message to its recipient; False if there is none or it does not keep up, which the sender of a request is told."""
        sender, recipient, payload = frames
        for target in (back,) if recipient.endswith(SERVICE) else self._targets:
            try:
                name = self._public.get(sender, sender)
                target.send_nowait((self._reserved.get(recipient, recipient), name, payload))
            except trio.WouldBlock:
                self._answer(frames, source, lambda name: f"{name} does not keep up with its messages")
                return False
            except zmq.ZMQError as error:
                if error.errno != errno.EHOSTUNREACH:
                    raise
            else:
                self.counters.routed += 1
                return True
        self._note_absence(recipient)
        self._answer(frames, source, lambda name: self._absent(recipient, name))
        return False

    def _complain(self, name: bytes) -> None:
        """Log that a program uses a reserved name; what it sends is dropped."""
        self.counters.malformed += 1
        now = trio.current_time()
        if now - self._complained_at >= COMPLAINT_INTERVAL:
            self._complained_at = now
            self._log.warning(
                "a program takes the name of a service of the robot: it gets no call, and what it sends is dropped",
                name=_text(name),
            )

    def _flooded(self, sender: bytes, recipient: bytes, *, is_service: bool) -> str:
        """What keeps a peer from sending one more message to a service; empty if it may. An answer makes room for its recipient."""
        if is_service:
            self._quota.answered(recipient)
            if station := station_of(recipient):
                self._quota_of_station.answered(station.encode())
            return ""
        now = trio.current_time()
        if not recipient.endswith(SERVICE):
            return ""
        if not self._quota.spend(sender, now):
            return f"{self._quota.most} messages of this peer"
        # What a station has sent stays counted when one of its connections ends: else it could connect anew for more room.
        if (station := station_of(sender)) and not self._quota_of_station.spend(station.encode(), now):
            self._quota.answered(sender)
            return f"{self._quota_of_station.most} messages of station {station}"
        return ""

    def _note_absence(self, service: bytes) -> None:
        if service in self._services:
            del self._services[service]
            _remember(self._ended, service)

    def _absent(self, service: bytes, name: str) -> str:
        """What to say of a service that is not connected; a service of rt itself is never taken for a mistyped other one."""
        if service in OWN_SERVICES or service in self._ended:
            return f"{name} is not connected: it is starting or has ended; try again in a moment, `rt logs` says why"
        return unknown("service", name, [_text(self._public.get(each, each)) for each in self._services])

    def _greet(self, sender: bytes, source: Socket | StationSide, back: Socket) -> None:
        """Answer a hello with a hello: now the peer knows that messages reach it."""
        self.counters.hellos += 1
        if source is back:
            _remember(self._services, sender)
            self._ended.pop(sender, None)
        self._reply(source, (sender, b"", b""))

    def _answer(self, frames: list[bytes], source: Socket | StationSide, say: Callable[[str], str]) -> None:
        """Tell whoever asked why there is no answer; the sentence is made only if somebody wants it."""
        sender, recipient, payload = frames
        try:
            # Of a long message only the head is read: it may have been sent to cost time.
            message = rpc.decode(payload) if len(payload) <= rpc.HEAD_MAX else rpc.peek(payload)
        except RemoteProtocolError:
            message = None
        if message is None:
            self.counters.malformed += 1
            return
        if not isinstance(message, rpc.Request):
            self.counters.dropped += 1
            return
        # What is too long to be a name is not said back whole: the answer has to fit in a message.
        name = clip(_text(recipient[:NAME_MAX]), NAME_MAX)
        sentence = say(name)
        context = {"address": name, "method": message.method}
        if self._reply(source, (sender, recipient, rpc.encode(rpc.Response(message.id, (sentence, context), None)))):
            self.counters.answered += 1

    def _reply(self, source: Socket | StationSide, frames: tuple[bytes, bytes, bytes]) -> bool:
        taken = offer(source, frames)
        self.counters.dropped += not taken
        return taken


def _call_at_once(calls: Mapping[str, Callable[[], None]], payload: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        message = rpc.decode(payload)
        if isinstance(message, rpc.Request | rpc.Notification) and not message.params:
            calls.get(message.method, lambda: None)()


def _refusal(sender: bytes, recipient: bytes, *, is_front: bool) -> str:
    """Why a message is not carried, whoever the recipient is; empty if it is."""
    if sender == recipient:
        return "a message cannot go to its sender"
    # With the name of a service a client could answer as one, and had its calls while it is started again.
    if is_front and sender.endswith(SERVICE):
        name = _text(recipient[:NAME_MAX])
        return f"nobody but a service, which has the backend, may write to {name} as {_text(sender)}"
    if is_front and station_of(sender):
        return f"{_text(sender)} is the name of a station's program: use a name without a slash"
    return ""


_FLOODED = "the call was not passed on to {}: {} are unanswered; wait for the answers"


def _remember(names: dict[bytes, None], name: bytes) -> None:
    if name not in names and len(names) >= KNOWN_MAX:
        del names[next(iter(names))]
    names[name] = None


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
