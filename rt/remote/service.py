"""A service: reads calls from a node, runs the handler's methods, sends the answers.

The rules of this module: every request is answered once, with a result or with an error that says
why not, unless whoever asked has gone; a method runs no longer than its limit, and stops when
nobody waits for its answer any more; and nothing that comes in (bytes that are no call, methods
that do not exist, wrong arguments, too many calls at once) ends the service.
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
from rt.protocol import rpc
from rt.remote.bounds import DEFAULT, UNROUTED, Bounds
from rt.remote.caller import Caller, set_caller
from rt.remote.handler import Handler, Route, describe_unknown
from rt.remote.inbox import Call, Inbox
from rt.remote.node import Node, SocketNode
from rt.text import clip
from rt.transport.counters import ServiceCounters

BACKLOG = 128
"""Calls that may wait for a free place; a call beyond them is answered with an error at once."""

TIME_LIMIT = 60.0
"""How long a call may run when neither its route nor its service says, in s."""

ANNOUNCE_INTERVAL = 3.0
"""Time between two hellos to the router, in s; one that was restarted knows the service again after at most so long."""

EAGER_DECODE_MAX = 1024
"""Bytes of a message that is decoded whatever it says; of a longer one the name of the method is read first."""

LOG_INTERVAL = 1.0
"""Time between two log events about notifications that failed, in s; those between are counted."""


BURST = 64
"""Messages that are read in a row before the rest of the process has its turn."""

_UNWANTED = "its caller does not wait any more"


class _Running:
    """A request that waits or runs, until it is answered."""

    __slots__ = ("abandoned", "scope", "why")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.abandoned = False
        self.why = ""

    def stop(self, why: str, *, abandoned: bool) -> None:
        self.abandoned = abandoned
        self.why = why
        self.scope.cancel(why)


class Service:
    """Serves a handler's methods over a node.

    Args:
        node: Where calls come in; the service opens and closes it.
        handler: What can be called.
        concurrency: Calls that run at the same time; inline routes do not count.
        logger: Where events go.
        threads: Limit of the worker threads for plain methods; by default one thread per concurrent
            call.
        limit: How long a call may run, in s, where its route does not say.
        bounds: What arguments may be at most, where neither a route nor the handler says; by
            default `bounds.DEFAULT` behind a router and `bounds.UNROUTED` without one.

    Raises:
        TypeError, NameError: A route's signature cannot be served.
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
        self._places = trio.Semaphore(concurrency)
        self._inbox = Inbox()
        self._starting: set[_Running] = set()
        self._open = 0
        self._urgent = 0
        self._known = trio.Event()
        self._said_at = -math.inf
        self._unsaid = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started as soon as calls can come in, with a router as soon as it has said so.

        A cancel ends the running calls, which stay unanswered. A plain method in a worker thread
        cannot be stopped: after a cancel, its time limit or its caller's leaving it runs to its
        end, unheard, and keeps its thread so long.

        Raises:
            EmergencyStopException: A handler raised it; its call was answered before.
            InstanceBusyError: The node's address is in use.
        """
        async with self.node, trio.open_nursery() as nursery:
            if self.node.routed:
                nursery.start_soon(self._announce)
            else:
                self._known.set()
            nursery.start_soon(self._receive, nursery)
            await self._known.wait()
            task_status.started()

    async def _announce(self) -> None:
        while True:
            try:
                await self.node.send(b"", rpc.ANNOUNCEMENT)
            except trio.TooSlowError:
                await trio.sleep(ANNOUNCE_INTERVAL / 20)  # no router yet
            else:
                await trio.sleep(ANNOUNCE_INTERVAL)

    async def _receive(self, nursery: trio.Nursery) -> None:
        """Read all that has come before the next call begins, so that an urgent call stands behind no other."""
        while True:
            if not self._inbox:
                await self._read(nursery, *await self.node.recv())
            if isinstance(self.node, SocketNode):
                for _ in range(BURST):
                    try:
                        peer, payload = self.node.recv_nowait()
                    except trio.WouldBlock:
                        break
                    await self._read(nursery, peer, payload)
            if self._inbox:
                await self._begin(nursery, self._inbox.take())
                if self._inbox:
                    await trio.lowlevel.checkpoint()

    async def _read(self, nursery: trio.Nursery, peer: bytes, payload: bytes) -> None:
        """Put a call among those that wait, or begin it if it is urgent; the arguments of a long one are not decoded yet."""
        if not payload:
            self._known.set()
            return
        # What this task logs until the next message is about this one.
        set_caller(Caller(peer, self.node.routed))
        is_long = len(payload) > EAGER_DECODE_MAX
        message = rpc.peek(payload) if is_long else self._decode(peer, payload)
        if message is None:
            if is_long:
                self.counters.malformed += 1
                self._log.debug("a payload was no call", peer=_text(peer), size=len(payload))
            return
        if message.method.startswith("$") and isinstance(message, rpc.Notification):
            # A router tells of up to a thousand peers at once; nothing else that is for the
            # protocol itself is long.
            whole = self._decode(peer, payload) if is_long and not peer else message
            if isinstance(whole, rpc.Notification):
                await self._heed(peer, whole)
            return
        await self._sort(nursery, peer, message, payload if is_long else b"")

    async def _sort(
        self,
        nursery: trio.Nursery,
        peer: bytes,
        message: rpc.Request | rpc.Notification,
        payload: bytes,
    ) -> None:
        self.counters.calls += 1
        route = self._routes.get(message.method)
        if route is None:
            await self._refuse(
                peer, message, describe_unknown("method", message.method, self._routes)
            )
        elif len(payload) > route.bounds.message:
            await self._refuse(peer, message, _too_long(route, len(payload)))
        else:
            call = Call(peer, message, route, payload)
            if route.urgent:
                await self._overtake(route)
            if route.urgent and (route.inline or self._urgent < BACKLOG):
                await self._begin(nursery, call)
            elif not self._inbox.put(call):
                self.counters.refused += 1
                # A flood of notifications is counted only: to log each costs more than to read it.
                if isinstance(message, rpc.Request):
                    await self._refuse(
                        peer,
                        message,
                        f"{route.name} was refused: too many calls are already waiting",
                    )

    async def _begin(self, nursery: trio.Nursery, call: Call) -> None:
        peer, message, route, payload = call
        set_caller(Caller(peer, self.node.routed))
        if payload:
            try:
                message = rpc.decode_raw(payload)
            except RemoteProtocolError as error:
                self.counters.malformed += 1
                await self._refuse(
                    peer, message, f"{route.name} was refused: {clip(error.message, 200)}"
                )
                return
        if route.inline:
            await self._serve(peer, message, route)
        elif route.urgent and self._urgent < BACKLOG:
            self._urgent += 1
            nursery.start_soon(self._serve_urgently, peer, message, route)
        elif self._open >= self._concurrency + BACKLOG:
            self.counters.refused += 1
            await self._refuse(
                peer, message, f"{route.name} was refused: {BACKLOG} calls are already waiting"
            )
        else:
            self._open += 1
            nursery.start_soon(self._serve_in_place, peer, message, route)

    async def _overtake(self, urgent: Route) -> None:
        """Refuse what would start, after an urgent call, what that call stops."""
        overtaken = [call for call in self._inbox if call.route.starts]
        self._inbox.remove(overtaken)
        for call in overtaken:
            self.counters.refused += 1
            await self._refuse(
                call.peer,
                call.message,
                f"{call.route.name} was refused: {urgent.name} came after it",
            )
        for waiting in list(self._starting):
            waiting.stop(f"{urgent.name} came after it", abandoned=False)

    def _decode(self, peer: bytes, payload: bytes) -> rpc.Request | rpc.Notification | None:
        try:
            message = rpc.decode(payload)
        except RemoteProtocolError as error:
            self.counters.malformed += 1
            self._log.debug("a payload was no call", peer=_text(peer), reason=error.message)
            return None
        if isinstance(message, rpc.Response):
            self.counters.malformed += 1
            self._log.debug("an answer came to a service", peer=_text(peer))
            return None
        return message

    async def _heed(self, peer: bytes, message: rpc.Notification) -> None:
        """Stop what nobody waits for any more; a message of the protocol that is unknown here is ignored."""
        if (
            message.method == rpc.CANCEL
            and len(message.params) == 1
            and isinstance(message.params[0], int)
        ):
            call_id = message.params[0]
            running = self._running.get((peer, call_id))
            if running is not None:
                running.stop(_UNWANTED, abandoned=False)
            elif self._inbox:
                await self._forget(peer, call_id)
        elif (
            message.method == rpc.GONE and self.node.routed and not peer
        ):  # of the router itself, whose name is empty
            gone = {each for each in message.params if isinstance(each, bytes)}
            for (caller, _), running in list(self._running.items()):
                if caller in gone:
                    running.stop("its caller has gone", abandoned=True)
            left = [
                call
                for call in self._inbox
                if call.peer in gone and isinstance(call.message, rpc.Request)
            ]
            self._inbox.remove(left)
            self.counters.cancelled += len(left)

    async def _forget(self, peer: bytes, call_id: int) -> None:
        """Answer a call that has not begun, and that its caller has taken back."""
        for call in self._inbox:
            if (
                call.peer == peer
                and isinstance(call.message, rpc.Request)
                and call.message.id == call_id
            ):
                self._inbox.remove([call])
                self.counters.cancelled += 1
                await self._refuse(
                    peer, call.message, f"{call.route.name} was stopped: {_UNWANTED}"
                )
                return

    async def _serve_urgently(
        self, peer: bytes, message: rpc.Request | rpc.Notification, route: Route
    ) -> None:
        try:
            await self._serve(peer, message, route)
        finally:
            self._urgent -= 1

    async def _serve_in_place(
        self, peer: bytes, message: rpc.Request | rpc.Notification, route: Route
    ) -> None:
        running = _Running()
        key = (peer, message.id) if isinstance(message, rpc.Request) else None
        if key is not None:
            self._running[key] = running
        if route.starts:
            self._starting.add(running)
        try:
            with running.scope:
                await self._serve_when_free(peer, message, route, running)
        finally:
            self._open -= 1
            self._starting.discard(running)
            if key is not None and self._running.get(key) is running:
                del self._running[key]
        if running.scope.cancelled_caught:
            self.counters.cancelled += 1
            self._log.debug(
                "a call was stopped", method=route.name, peer=_text(peer), reason=running.why
            )
            if not running.abandoned:
                await self._refuse(peer, message, f"{route.name} was stopped: {running.why}")

    async def _serve_when_free(
        self, peer: bytes, message: rpc.Request | rpc.Notification, route: Route, running: _Running
    ) -> None:
        try:
            # The usual case goes on at once; `async with` would give way to every other task first.
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._places.acquire()
        self._starting.discard(running)
        try:
            await self._serve(peer, message, route)
        finally:
            self._places.release()

    async def _serve(
        self, peer: bytes, message: rpc.Request | rpc.Notification, route: Route
    ) -> None:
        try:
            args = route.bind(message.params)
        except RemoteProtocolError as error:
            await self._refuse(peer, message, error.message, error.context)
            return
        set_caller(Caller(peer, self.node.routed))
        try:
            result = await self._invoke(route, args)
        except RuntimeBaseException as error:
            # Whoever asked is told; a notification has nobody to tell but the log.
            about = {
                "method": route.name,
                "peer": _text(peer),
                "reason": error.message,
                **_plain(error.context),
            }
            if isinstance(message, rpc.Request):
                self._log.debug("a call failed", **about)
            else:
                self._complain("a call failed", **about)
            await self._refuse(peer, message, error.message, error.context)
            if isinstance(error, EmergencyStopException):
                raise
        except (
            Exception
        ) as error:  # a handler's bug is its caller's answer and never the service's end
            if isinstance(message, rpc.Request):
                self._log.error(
                    "a handler failed", method=route.name, peer=_text(peer), exc_info=error
                )
            else:
                self._complain(
                    "a handler failed", method=route.name, peer=_text(peer), exc_info=error
                )
            await self._refuse(peer, message, f"{type(error).__name__}: {error}")
            if isinstance(error, ExceptionGroup) and error.subgroup(EmergencyStopException):
                raise
        else:
            if isinstance(message, rpc.Request):
                await self._answer(peer, rpc.Response(message.id, None, result))

    def _complain(self, sentence: str, **about: Any) -> None:
        """Say that a notification failed, at most once a second: anybody can send thousands."""
        now = trio.current_time()
        if now - self._said_at < LOG_INTERVAL:
            self._unsaid += 1
            return
        if self._unsaid:
            about["unsaid"] = self._unsaid
        self._said_at, self._unsaid = now, 0
        self._log.warning(sentence, **about)

    async def _invoke(self, route: Route, args: list[Any]) -> Any:
        if route.inline:
            return route.method(*args)
        limit = route.limit or (math.inf if route.urgent else self.limit)
        with trio.move_on_after(limit) as clock:
            if route.is_async:
                return await route.method(*args)
            call = functools.partial(route.method, *args)
            return await trio.to_thread.run_sync(
                call, abandon_on_cancel=True, limiter=self._threads
            )
        assert clock.cancelled_caught
        self.counters.timed_out += 1
        raise RemoteCallError(
            f"{route.name} was stopped: it ran longer than its limit of {limit:g} s",
            method=route.name,
            limit=limit,
        )

    async def _refuse(
        self,
        peer: bytes,
        message: rpc.Request | rpc.Notification,
        sentence: str,
        context: dict[str, Any] | None = None,
    ) -> None:
        self.counters.errors += 1
        if isinstance(message, rpc.Request):
            await self._answer(peer, rpc.Response(message.id, (sentence, context or {}), None))
        else:
            self._log.debug(
                "a notification was not obeyed",
                method=message.method,
                peer=_text(peer),
                reason=sentence,
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
            self._log.debug("an answer could not be sent", peer=_text(peer), reason=str(error))


def _sendable(error: rpc.ErrorValue | None, cause: LocalProtocolError) -> rpc.ErrorValue:
    if error is None:
        return f"the call was made, but its result cannot be sent: {cause.message}", {}
    sentence, context = error
    plain = {key: str(value)[:1000] for key, value in context.items()}
    return _printable(sentence), {
        _printable(key): _printable(value) for key, value in plain.items()
    }


def _printable(text: str) -> str:
    return text[:10_000].encode(errors="replace").decode()


def _plain(context: dict[str, Any]) -> dict[str, Any]:
    # The context of an error may use the names that the event itself has.
    return {
        f"context_{key}" if key in {"event", "method", "peer", "reason"} else key: value
        for key, value in context.items()
    }


def _too_long(route: Route, size: int) -> str:
    return f"a call of {route.name} may take {route.bounds.message} bytes; this one takes {size}, send less at once"


def _text(peer: bytes) -> str:
    return peer.decode(errors="backslashreplace")
