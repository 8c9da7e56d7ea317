"""The router, which carries calls from clients to services and responses back.

A peer sends `[recipient, payload]`; the recipient receives `[sender, payload]`. Clients connect to
the frontend and services to the backend. A message may cross sides or stay on one; names that end
in `-service` belong to the backend.

Invariant: a request that cannot be delivered is answered with an error immediately; the router
decodes a payload only for that. Nothing that a peer sends or fails to read stops the router for
others.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Mapping

import trio
import zmq

from rt import log
from rt.access.authenticator import Authenticator
from rt.access.station_sockets import SERVICE, StationSide, station_of
from rt.errors import RemoteProtocolError
from rt.log.throttle import Throttle
from rt.protocol import rpc
from rt.remote.handler import describe_unknown
from rt.remote.peer_tracker import RETURN_TIME, PeerTracker, try_send
from rt.remote.quota import STATION_SCALE, Quota
from rt.text import clip
from rt.transport.counters import RouterCounters
from rt.transport.zmq_socket import Socket

IMMEDIATE_MAX = 64
"""Maximum length of an immediate call in bytes; see `Router.set_immediate_calls`."""

BURST = 64
"""Messages of one side that are routed before a checkpoint."""

SERVICE_NAMES_MAX = 256
"""Maximum number of remembered service names, used for notifications and error messages.

Beyond it the oldest is forgotten; routing is not affected.
"""

OWN_SERVICES = frozenset({b"broker-service", b"device-service", b"executor-service"})
"""Services of rt's own processes, which every robot has or is about to start."""

_RESERVED = b"\x01"
"""Prefix of the identities of reserved names; see `Router.reserve`."""

LOG_INTERVAL = 1.0
"""Minimum time between log events about reserved names, in s."""

NAME_MAX = 255
"""Maximum length of a peer's name in ZMQ, in bytes."""

_CONNECTION_OPTIONS: dict[int, int | bytes] = {
    # Detects peers whose radio link broke without a FIN. In ms.
    zmq.HEARTBEAT_IVL: 2000,
    zmq.HEARTBEAT_TIMEOUT: 6000,
    # Closes connections that do not complete the ZMTP handshake. In ms.
    zmq.HANDSHAKE_IVL: 5000,
}
_OPTIONS: dict[int, int | bytes] = {
    **_CONNECTION_OPTIONS,
    # Report unknown recipients instead of dropping messages silently.
    zmq.ROUTER_MANDATORY: 1,
    # A restarted service gets its name back immediately, not when its old connection times out.
    # All peers of these sockets belong to this user: each station has its own socket.
    zmq.ROUTER_HANDOVER: 1,
}
_NO_HEARTBEAT: dict[int, int | bytes] = {zmq.HEARTBEAT_IVL: 0}
"""For sockets with local peers only: the kernel closes the connections of an exited process."""


class Router:
    """A message router between the peers of two ROUTER sockets.

    At the high-water mark of a recipient (1000 messages, see `rt.transport.zmq_socket`) a request
    is answered with an error; other messages are dropped and counted. The router stores the
    connection number and the identity of a peer only while it is connected.

    Services are notified of disconnected callers (`rpc.GONE`), so that they stop their calls: at
    once, or after `return_time` for a peer with a self-chosen name, which may reconnect. All peers
    are notified at once when a service disconnects, because even a restarted service does not
    answer earlier calls.

    Args:
        frontends: Addresses for clients, e.g. `tcp://127.0.0.1:6000`.
        backends: Addresses for services.
        context: ZMQ context; by default the one of the process.
        logger: Logger for events.
        authenticator: Decides who may connect over TCP; None admits every peer. Connections with a
            station's key are named after the station, see `rt.access.station_sockets`.
        return_time: Time within which a peer with a self-chosen name may reconnect, in s.
    """

    def __init__(
        self,
        frontends: Iterable[str],
        backends: Iterable[str],
        *,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        logger: log.Logger | None = None,
        authenticator: Authenticator | None = None,
        return_time: float = RETURN_TIME,
    ) -> None:
        self.counters = RouterCounters()
        self.frontends = tuple(frontends)
        self.backends = tuple(backends)
        self._context = context
        self._authenticator = authenticator
        self._log = logger or log.get_logger()
        self._reserved: dict[bytes, bytes] = {}
        self._public: dict[bytes, bytes] = {}
        self._return_time = return_time
        self._reserved_uses = Throttle(burst=1, interval=LOG_INTERVAL, clock=trio.current_time)
        self._services: dict[bytes, None] = {}
        self._disconnected: dict[bytes, None] = {}
        self._quota = Quota()
        self._quota_of_station = Quota(STATION_SCALE)
        self._peer_tracker: PeerTracker
        self._front: Socket
        self._back: Socket
        self._immediate_calls: dict[bytes, Mapping[str, Callable[[], None]]] = {}
        self._targets: tuple[StationSide | Socket, ...] = ()

    def reserve(self, service: str) -> bytes:
        """Reserve a name for a service of this process; return the identity for its connection.

        No other process can then answer under the name. This matters because every process of the
        robot's user may connect to the backend, including team code. The identity is secret.
        """
        name = service.encode()
        identity = self._reserved[name] = _RESERVED + os.urandom(16).hex().encode()
        self._public[identity] = name
        return identity

    def set_immediate_calls(self, service: str, calls: Mapping[str, Callable[[], None]]) -> None:
        """Set functions that the router calls as soon as it reads a call, to stop the robot.

        The router delivers the call to its service as well, which answers it. There it may wait
        behind many others, and it is refused above the service's high-water mark.

        Args:
            service: The name of the service.
            calls: Functions by the name of a method without arguments. They return at once and
                raise nothing. They are also called for a call that is then refused.
        """
        self._immediate_calls[service.encode()] = dict(calls)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Route messages until cancelled.

        Started when all addresses are bound; `frontends` and `backends` then hold the actual ones.

        Raises:
            InstanceBusyError: An address is in use.
            ConfigError: An address cannot be bound.
        """
        quiet = _NO_HEARTBEAT if all(each.startswith("ipc://") for each in self.backends) else {}
        with (
            Socket(zmq.ROUTER, options=_OPTIONS, context=self._context) as front,
            Socket(zmq.ROUTER, options=_OPTIONS | quiet, context=self._context) as back,
        ):
            self._front, self._back = front, back
            stations = StationSide(_CONNECTION_OPTIONS, context=self._context)
            peer_tracker = self._peer_tracker = PeerTracker(
                front,
                back,
                stations,
                self._services,
                self.counters,
                logger=self._log,
                public=self._public,
                return_time=self._return_time,
            )
            peer_tracker.on_gone = self._quota.forget
            stations.on_gone = lambda name: peer_tracker.report_gone([name])
            if self._authenticator is not None:
                self.frontends = self._authenticator.bind(front, self.frontends, stations=stations)
                self.backends = self._authenticator.bind(back, self.backends, accepts_keys=False)
            else:
                self.frontends = tuple([front.bind(address) for address in self.frontends])
                self.backends = tuple([back.bind(address) for address in self.backends])
            self._targets = (stations, front, back)
            try:
                async with trio.open_nursery() as nursery:
                    peer_tracker.start(nursery)
                    for source in self._targets:
                        nursery.start_soon(self._route_from, source)
                    task_status.started()
            finally:
                stations.on_gone = lambda _: None
                if self._authenticator is not None:
                    self._authenticator.release(front)

    async def _route_from(self, source: Socket | StationSide) -> None:
        record = (
            source.record
            if isinstance(source, StationSide)
            else self._peer_tracker.disconnects_of(source).record
        )
        while True:
            frames = await source.recv()
            with contextlib.suppress(trio.WouldBlock):
                for left in range(BURST, -1, -1):
                    sender = self._route(frames, source)
                    if sender is not None and (gone := record(source.source, sender)) is not None:
                        self._peer_tracker.report_gone([gone])
                    if not left or not source.has_message():
                        break
                    frames = source.recv_nowait()

    def _route(self, frames: list[bytes], source: Socket | StationSide) -> bytes | None:
        """Route a message; return its sender if others must be notified of its disconnect."""
        if len(frames) != 3:
            self.counters.malformed += 1
            return None
        sender, recipient, payload = frames
        if source is self._back and sender in self._reserved:
            self._log_reserved(sender)
            return None
        if (not payload or not recipient) and (wanted := rpc.parse_hello(payload)) is not None:
            if rpc.GONE in wanted:
                self._peer_tracker.announce(source, sender)
            self._answer_hello(sender, source)
            return sender
        refusal = _refusal(sender, recipient, is_front=source is self._front)
        if not refusal and len(payload) <= IMMEDIATE_MAX:
            self._call_immediately(recipient, payload)
        if refusal or (excess := self._excess(sender, recipient, is_service=source is self._back)):
            self._answer(frames, source, lambda name: refusal or _OVER_QUOTA.format(name, excess))
            return None if refusal else sender
        return sender if self._deliver(frames, source) else None

    def _deliver(self, frames: list[bytes], source: Socket | StationSide) -> bool:
        """Send a message to its recipient.

        Returns:
            False if the recipient is not connected or its queue is full; the sender of a request
            gets an error then.
        """
        sender, recipient, payload = frames
        for target in (self._back,) if recipient.endswith(SERVICE) else self._targets:
            try:
                name = self._public.get(sender, sender)
                target.send_nowait((self._reserved.get(recipient, recipient), name, payload))
            except trio.WouldBlock:
                self._answer(frames, source, lambda name: f"the message queue of {name} is full")
                return False
            except zmq.ZMQError as error:
                if error.errno != errno.EHOSTUNREACH:
                    raise
            else:
                self.counters.routed += 1
                return True
        self._record_absence(recipient)
        self._answer(frames, source, lambda name: self._describe_absence(recipient, name))
        return False

    def _log_reserved(self, name: bytes) -> None:
        """Log that another program uses a reserved name; its messages are dropped."""
        self.counters.malformed += 1
        self._reserved_uses.log(
            self._log.warning,
            "reserved name used by another program; its messages are dropped",
            name=_text(name),
        )

    def _excess(self, sender: bytes, recipient: bytes, *, is_service: bool) -> str:
        """Count a message; return which quota it exceeds, or an empty string.

        A message from a service counts as a response, which frees quota of its recipient.
        """
        if is_service:
            self._quota.record_answer(recipient)
            if station := station_of(recipient):
                self._quota_of_station.record_answer(station.encode())
            return ""
        now = trio.current_time()
        if not recipient.endswith(SERVICE):
            return ""
        if not self._quota.spend(sender, now):
            return f"{self._quota.limit} messages of this peer"
        # A station keeps its count when a connection ends: otherwise it could reconnect for a new
        # quota.
        if (station := station_of(sender)) and not self._quota_of_station.spend(
            station.encode(), now
        ):
            self._quota.record_answer(sender)
            return f"{self._quota_of_station.limit} messages of station {station}"
        return ""

    def _record_absence(self, service: bytes) -> None:
        if service in self._services:
            del self._services[service]
            _remember(self._disconnected, service)

    def _describe_absence(self, service: bytes, name: str) -> str:
        """Return the error message for a recipient that is not connected.

        Other names are suggested only for names that no service is known to have.
        """
        if service in OWN_SERVICES or service in self._disconnected:
            return (
                f"{name} is not connected because it is starting or has exited; "
                "try again in a moment, or see `rt logs`"
            )
        return describe_unknown(
            "service", name, [_text(self._public.get(each, each)) for each in self._services]
        )

    def _answer_hello(self, sender: bytes, source: Socket | StationSide) -> None:
        """Answer a hello with a hello, by which the peer knows that messages reach it."""
        self.counters.hellos += 1
        if source is self._back:
            _remember(self._services, sender)
            self._disconnected.pop(sender, None)
        self._reply(source, (sender, b"", b""))

    def _answer(
        self, frames: list[bytes], source: Socket | StationSide, error: Callable[[str], str]
    ) -> None:
        """Answer a request with an error; drop and count any other message.

        Args:
            frames: The message.
            source: Side from which it came.
            error: Returns the error message for the recipient's name; called for requests only.
        """
        sender, recipient, payload = frames
        try:
            # Read only the head of a long message: it may have been sent to waste time.
            message = rpc.decode(payload) if len(payload) <= rpc.HEAD_MAX else rpc.peek(payload)
        except RemoteProtocolError:
            message = None
        if message is None:
            self.counters.malformed += 1
            return
        if not isinstance(message, rpc.Request):
            self.counters.dropped += 1
            return
        # The recipient may be longer than any name, and the response has to fit in a message.
        name = clip(_text(recipient[:NAME_MAX]), NAME_MAX)
        context = {"address": name, "method": message.method}
        response = rpc.Response(message.id, (error(name), context), None)
        if self._reply(source, (sender, recipient, rpc.encode(response))):
            self.counters.answered += 1

    def _call_immediately(self, recipient: bytes, payload: bytes) -> None:
        """Call the function for an immediate call, if the message is one."""
        calls = self._immediate_calls.get(recipient)
        if calls is None:
            return
        with contextlib.suppress(RemoteProtocolError):
            message = rpc.decode(payload)
            if isinstance(message, rpc.Request | rpc.Notification) and not message.params:
                calls.get(message.method, lambda: None)()

    def _reply(self, source: Socket | StationSide, frames: tuple[bytes, bytes, bytes]) -> bool:
        sent = try_send(source, frames)
        self.counters.dropped += not sent
        return sent


def _refusal(sender: bytes, recipient: bytes, *, is_front: bool) -> str:
    """Return why messages of a sender are refused, or an empty string."""
    if sender == recipient:
        return "cannot send a message to its sender"
    # With the name of a service, a client could answer as the service, and would receive its calls
    # while it restarts.
    if is_front and sender.endswith(SERVICE):
        name = _text(recipient[:NAME_MAX])
        return f"cannot send to {name} as {_text(sender)}: services must connect to the backend"
    if is_front and station_of(sender):
        return f"{_text(sender)} is reserved for a station's program; use a name without a slash"
    return ""


_OVER_QUOTA = "call to {} refused: {} are unanswered; wait for the responses"


def _remember(names: dict[bytes, None], name: bytes) -> None:
    if name not in names and len(names) >= SERVICE_NAMES_MAX:
        del names[next(iter(names))]
    names[name] = None


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
