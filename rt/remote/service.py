"""A service, which reads calls from a node, runs the handler's methods and sends the responses.

Invariants: Every request gets exactly one response, a result or an error, unless its caller has
disconnected. A method stops when its time limit elapses or its caller abandons the call. No input
(malformed messages, unknown methods, invalid arguments, floods of calls) ends the service.
"""

import functools
import math
from typing import Any

import trio

from rt import log
from rt.errors import (
    EmergencyStopException,
    LocalProtocolError,
    RemoteCallError,
    RemoteProtocolError,
    RuntimeBaseException,
)
from rt.log.throttle import Throttle, Write
from rt.protocol import rpc
from rt.remote.bounds import DEFAULT, UNROUTED, Bounds
from rt.remote.caller import Caller, set_caller
from rt.remote.handler import Handler, Route, describe_unknown
from rt.remote.inbox import Call, Inbox, Message
from rt.remote.node import Node, SocketNode
from rt.text import clip
from rt.transport.counters import ServiceCounters

BACKLOG = 128
"""Maximum number of calls that wait for a free slot; further calls are refused."""

TIME_LIMIT = 60.0
"""Default time limit of a call, in s."""

ANNOUNCE_INTERVAL = 3.0
"""Time between hellos to the router, in s; a restarted router knows the service after this time."""

EAGER_DECODE_MAX = 1024
"""Maximum size of a message that is decoded at once, in bytes.

Of a longer message, the name of the method is read first.
"""

LOG_INTERVAL = 1.0
"""Minimum time between log events about failed notifications, in s."""

BURST = 64
"""Messages that are read before a checkpoint."""

_CANCELLED = "its caller cancelled it"


class _Running:
    """A waiting or running call, until it is answered."""

    __slots__ = ("caller_gone", "reason", "scope")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.caller_gone = False
        self.reason = ""

    def stop(self, reason: str, *, caller_gone: bool = False) -> None:
        self.caller_gone = caller_gone
        self.reason = reason
        self.scope.cancel(reason)


class Service:
    """A server of a handler's methods over a node.

    Args:
        node: Node that receives the calls; the service opens and closes it.
        handler: The methods.
        concurrency: Maximum number of concurrent calls, not counting inline and urgent routes.
        logger: Logger for events.
        threads: Limiter of the worker threads for plain methods; by default `concurrency` threads.
        limit: Default time limit of a call, in s.
        bounds: Default bounds of arguments; `bounds.DEFAULT` with a router and `bounds.UNROUTED`
            without one if None.
        backlog: Maximum number of calls that wait for a free slot.

    Raises:
        TypeError, NameError: A route's signature is not supported.
    """

    def __init__(
        self,
        node: Node,
        handler: Handler,
        *,
        concurrency: int = 5,
        logger: log.Logger | None = None,
        threads: trio.CapacityLimiter | None = None,
        limit: float = TIME_LIMIT,
        bounds: Bounds | None = None,
        backlog: int = BACKLOG,
    ) -> None:
        self.node = node
        self.limit = limit
        self._running: dict[tuple[bytes, int], _Running] = {}
        self.counters = ServiceCounters()
        self._routes = handler.routes()
        for each in self._routes.values():
            each.set_default_bounds(bounds or (DEFAULT if node.routed else UNROUTED))
        self._concurrency = concurrency
        self._log = logger or log.get_logger()
        self._threads = threads or trio.CapacityLimiter(concurrency)
        self._backlog = backlog
        self._slots = trio.Semaphore(concurrency)
        self._inbox = Inbox()
        self._nursery: trio.Nursery
        self._starting: set[_Running] = set()
        self._open = 0
        self._urgent = 0
        self._registered = trio.Event()
        self._failures = Throttle(burst=1, interval=LOG_INTERVAL, clock=trio.current_time)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled.

        Started when calls can arrive; with a router, when the router has confirmed it.

        A cancel stops the running calls without a response. A plain method in a worker thread
        cannot be stopped: after a cancel, a timeout or its caller's disconnect it runs to its end,
        occupies its thread, and its result is dropped.

        Raises:
            EmergencyStopException: A handler raised it; the call has been answered.
            InstanceBusyError: The node's address is in use.
        """
        async with self.node, trio.open_nursery() as self._nursery:
            if self.node.routed:
                self._nursery.start_soon(self._announce)
            else:
                self._registered.set()
            self._nursery.start_soon(self._receive)
            await self._registered.wait()
            task_status.started()

    async def _announce(self) -> None:
        while True:
            try:
                await self.node.send(b"", rpc.HELLO_MESSAGE)
            except trio.TooSlowError:
                await trio.sleep(ANNOUNCE_INTERVAL / 20)  # no router yet
            else:
                await trio.sleep(ANNOUNCE_INTERVAL)

    async def _receive(self) -> None:
        """Read all available messages before each call, so that urgent calls overtake others."""
        while True:
            if not self._inbox:
                await self._read(*await self.node.recv())
            if isinstance(self.node, SocketNode):
                for _ in range(BURST):
                    try:
                        peer, payload = self.node.recv_nowait()
                    except trio.WouldBlock:
                        break
                    await self._read(peer, payload)
            if self._inbox:
                await self._begin(self._inbox.take())
                if self._inbox:
                    await trio.lowlevel.checkpoint()

    async def _read(self, peer: bytes, payload: bytes) -> None:
        """Queue a call, or start it if it is urgent; long arguments are decoded later."""
        if not payload:
            self._registered.set()
            return
        # Charge log events to this caller until the next message.
        set_caller(Caller(peer, self.node.routed))
        is_long = len(payload) > EAGER_DECODE_MAX
        message = rpc.peek(payload) if is_long else self._decode(peer, payload)
        if message is None:
            if is_long:
                self.counters.malformed += 1
                self._log.debug("malformed call", peer=_text(peer), size=len(payload))
            return
        if message.method.startswith("$") and isinstance(message, rpc.Notification):
            # Only a router sends long protocol messages: it reports up to 1000 peers at once.
            whole = self._decode(peer, payload) if is_long and not peer else message
            if isinstance(whole, rpc.Notification):
                await self._handle_protocol_message(peer, whole)
            return
        await self._dispatch(peer, message, payload if is_long else b"")

    async def _dispatch(self, peer: bytes, message: Message, payload: bytes) -> None:
        self.counters.calls += 1
        route = self._routes.get(message.method)
        if route is None:
            problem = describe_unknown("method", message.method, self._routes)
            await self._answer_error(peer, message, problem)
            return
        call = Call(peer, message, route, payload)
        if len(payload) > route.bounds.message:
            await self._refuse(call, _too_long(route, len(payload)))
            return
        if route.urgent:
            await self._refuse_overtaken(route)
        if route.urgent and (route.inline or self._urgent < self._backlog):
            await self._begin(call)
        elif not self._inbox.put(call):
            self.counters.refused += 1
            # Refused notifications are only counted: logging them costs more than reading them.
            if isinstance(message, rpc.Request):
                await self._refuse(
                    call, f"{route.name} was refused because too many calls are waiting"
                )

    async def _begin(self, call: Call) -> None:
        route = call.route
        set_caller(Caller(call.peer, self.node.routed))
        if call.payload:
            try:
                call = Call(call.peer, rpc.decode_raw(call.payload), route)
            except RemoteProtocolError as error:
                self.counters.malformed += 1
                await self._refuse(call, f"{route.name} was refused: {clip(error.message, 200)}")
                return
        if route.inline:
            await self._serve(call)
        elif route.urgent and self._urgent < self._backlog:
            self._urgent += 1
            self._nursery.start_soon(self._serve_urgently, call)
        elif self._open >= self._concurrency + self._backlog:
            self.counters.refused += 1
            await self._refuse(
                call, f"{route.name} was refused because {self._backlog} calls are waiting"
            )
        else:
            self._open += 1
            self._nursery.start_soon(self._serve_in_slot, call)

    async def _refuse_overtaken(self, urgent: Route) -> None:
        """Refuse waiting calls that would start again what an urgent call stops."""
        for call in self._inbox.remove(lambda call: call.route.starts):
            self.counters.refused += 1
            await self._refuse(call, f"{call.route.name} was refused: {urgent.name} overtook it")
        for waiting in list(self._starting):
            waiting.stop(f"{urgent.name} overtook it")

    def _decode(self, peer: bytes, payload: bytes) -> Message | None:
        try:
            message = rpc.decode(payload)
        except RemoteProtocolError as error:
            self.counters.malformed += 1
            self._log.debug("malformed call", peer=_text(peer), reason=error.message)
            return None
        if isinstance(message, rpc.Response):
            self.counters.malformed += 1
            self._log.debug("unexpected response", peer=_text(peer))
            return None
        return message

    async def _handle_protocol_message(self, peer: bytes, message: rpc.Notification) -> None:
        """Handle `$cancel` and `$gone`; ignore unknown protocol messages."""
        if (
            message.method == rpc.CANCEL
            and len(message.params) == 1
            and isinstance(message.params[0], int)
        ):
            key = (peer, message.params[0])
            if key in self._running:
                self._running[key].stop(_CANCELLED)
                return
            for call in self._inbox.remove(lambda call: call.key == key):
                self.counters.cancelled += 1
                await self._refuse(call, f"{call.route.name} was stopped: {_CANCELLED}")
        # Only the router itself has an empty name.
        elif message.method == rpc.GONE and self.node.routed and not peer:
            gone = {each for each in message.params if isinstance(each, bytes)}
            for (caller, _), running in list(self._running.items()):
                if caller in gone:
                    running.stop("its caller disconnected", caller_gone=True)
            abandoned = self._inbox.remove(
                lambda call: call.peer in gone and isinstance(call.message, rpc.Request)
            )
            self.counters.cancelled += len(abandoned)

    async def _serve_urgently(self, call: Call) -> None:
        try:
            await self._serve(call)
        finally:
            self._urgent -= 1

    async def _serve_in_slot(self, call: Call) -> None:
        running = _Running()
        key = call.key
        if key is not None:
            self._running[key] = running
        if call.route.starts:
            self._starting.add(running)
        try:
            with running.scope:
                await self._serve_when_free(call, running)
        finally:
            self._open -= 1
            self._starting.discard(running)
            if key is not None and self._running.get(key) is running:
                del self._running[key]
        if running.scope.cancelled_caught:
            self.counters.cancelled += 1
            name = call.route.name
            self._log.debug(
                "call stopped", method=name, peer=_text(call.peer), reason=running.reason
            )
            if not running.caller_gone:
                await self._refuse(call, f"{name} was stopped: {running.reason}")

    async def _serve_when_free(self, call: Call, running: _Running) -> None:
        try:
            # Without a checkpoint if a slot is free, unlike `async with`.
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._slots.acquire()
        self._starting.discard(running)
        try:
            await self._serve(call)
        finally:
            self._slots.release()

    async def _serve(self, call: Call) -> None:
        try:
            args = call.route.bind(call.message.params)
        except RemoteProtocolError as error:
            await self._refuse(call, error.message, error.context)
            return
        set_caller(Caller(call.peer, self.node.routed))
        try:
            result = await self._invoke(call.route, args)
        except RuntimeBaseException as error:
            context = {"reason": error.message, **_without_reserved(error.context)}
            self._log_failure(call, self._log.debug, "call failed", **context)
            await self._refuse(call, error.message, error.context)
            if isinstance(error, EmergencyStopException):
                raise
        except Exception as error:  # a bug in a handler must not end the service
            self._log_failure(call, self._log.error, "handler failed", exc_info=error)
            await self._refuse(call, f"{type(error).__name__}: {error}")
            if isinstance(error, ExceptionGroup) and error.subgroup(EmergencyStopException):
                raise
        else:
            if isinstance(call.message, rpc.Request):
                await self._answer(call.peer, rpc.Response(call.message.id, None, result))

    def _log_failure(self, call: Call, write: Write, event: str, /, **context: Any) -> None:
        """Log a failed call.

        A notification has no caller that gets the error, so it is logged as a warning, rate-limited
        because any peer can send thousands.
        """
        context |= {"method": call.route.name, "peer": _text(call.peer)}
        if isinstance(call.message, rpc.Request):
            write(event, **context)
        else:
            self._failures.log(self._log.warning, event, "notification failed", **context)

    async def _invoke(self, route: Route, args: list[Any]) -> Any:
        if route.inline:
            return route.method(*args)
        limit = route.limit or (math.inf if route.urgent else self.limit)
        with trio.move_on_after(limit) as scope:
            if route.is_async:
                return await route.method(*args)
            call = functools.partial(route.method, *args)
            return await trio.to_thread.run_sync(
                call, abandon_on_cancel=True, limiter=self._threads
            )
        assert scope.cancelled_caught
        self.counters.timed_out += 1
        raise RemoteCallError(
            f"{route.name} was stopped because it exceeded its time limit of {limit:g} s",
            method=route.name,
            limit=limit,
        )

    async def _refuse(self, call: Call, error: str, context: dict[str, Any] | None = None) -> None:
        await self._answer_error(call.peer, call.message, error, context)

    async def _answer_error(
        self, peer: bytes, message: Message, error: str, context: dict[str, Any] | None = None
    ) -> None:
        self.counters.errors += 1
        if isinstance(message, rpc.Request):
            await self._answer(peer, rpc.Response(message.id, (error, context or {}), None))
        else:
            self._log.debug(
                "notification failed", method=message.method, peer=_text(peer), reason=error
            )

    async def _answer(self, peer: bytes, response: rpc.Response) -> None:
        try:
            payload = rpc.encode(response)
        except LocalProtocolError as error:
            payload = rpc.encode(rpc.Response(response.id, _sendable(response.error, error), None))
        try:
            await self.node.post(peer, payload)
        except (trio.TooSlowError, LocalProtocolError) as error:
            self.counters.unanswered += 1
            self._log.debug("response not sent", peer=_text(peer), reason=str(error))


def _sendable(error: rpc.ErrorValue | None, cause: LocalProtocolError) -> rpc.ErrorValue:
    if error is None:
        return f"the call completed, but its result cannot be sent: {cause.message}", {}
    message, context = error
    texts = {key: str(value)[:1000] for key, value in context.items()}
    return _printable(message), {_printable(key): _printable(value) for key, value in texts.items()}


def _printable(text: str) -> str:
    return text[:10_000].encode(errors="replace").decode()


def _without_reserved(context: dict[str, Any]) -> dict[str, Any]:
    """Return the context of an error with keys that the log event itself uses renamed."""
    return {
        f"context_{key}" if key in {"event", "method", "peer", "reason"} else key: value
        for key, value in context.items()
    }


def _too_long(route: Route, size: int) -> str:
    return (
        f"call to {route.name} has {size} bytes, at most {route.bounds.message} are accepted; "
        "send less data at once"
    )


def _text(peer: bytes) -> str:
    return peer.decode(errors="backslashreplace")
