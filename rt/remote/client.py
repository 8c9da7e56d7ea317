"""A client: calls the methods of services through a node.

The rule of this module: a call ends, with the service's result, with the service's error, or with
an error that says who did not answer in how many seconds. An answer is only ever given to the call
that it belongs to; one that comes too late is dropped and counted. A service is told when its
answer is not waited for any more (`rpc.CANCEL`), so that it can stop.
"""

import contextlib
import math
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import trio

from rt.errors import LocalProtocolError, RemoteCallError, RemoteProtocolError
from rt.protocol import rpc
from rt.remote.node import Node
from rt.text import clip
from rt.transport.counters import ClientCounters

ANNOUNCE_INTERVAL = 1.0
"""Least time between two announcements to the router that this client understands `rpc.GONE`, in s; only calls announce."""

CANCEL_TIME = 0.05
"""How long a call that has ended without an answer may try to tell the service so, in s."""


class _OpenCall:
    __slots__ = ("answer", "answered", "peer", "peer_lost")

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.answered = trio.Event()
        self.answer: rpc.Response | None = None
        self.peer_lost = False


class Caller:
    """Turns attributes and items into calls: `client.call.ping("1", address="device-service")`, `client.call["ping"](...)`."""

    __slots__ = ("_client",)

    def __init__(self, client: "Client") -> None:
        self._client = client

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return self[method]

    def __getitem__(self, method: str) -> Callable[..., Any]:
        async def call(
            *args: Any,
            address: str | None = None,
            notification: bool = False,
            timeout: float | None = None,  # noqa: ASYNC109 - passed on to issue_call
        ) -> Any:
            return await self._client.issue_call(
                method, *args, address=address, notification=notification, timeout=timeout
            )

        return call


class Client:
    """Makes calls, any number at the same time; an async context manager.

    >>> async def ask(node: Node) -> object:
    ...     async with Client(node, address="device-service") as client:
    ...         return await client.call.list_uids(timeout=2)

    Args:
        node: Through which calls go; the client opens and closes it.
        address: The service that is called when a call names none. A node without a router needs
            none.
        timeout: How long a call waits for its answer when it does not say, in s.
    """

    def __init__(self, node: Node, *, address: str | None = None, timeout: float = 1.0) -> None:
        self.node = node
        self.counters = ClientCounters()
        self.call = Caller(self)
        self._address = address
        self._timeout = timeout
        # Answers to an earlier client of the same identity must not be taken for ours.
        self._next_id = secrets.randbelow(rpc.ID_MAX + 1)
        self._announced_at = -math.inf
        self._calls: dict[int, _OpenCall] = {}
        self._scope: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> Self:
        await self.node.__aenter__()
        self._scope = trio.open_nursery()
        self._nursery = await self._scope.__aenter__()
        self._nursery.start_soon(self._receive)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._scope is not None
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel("the client is closed")
        try:
            # An error of the body stays what it is: only a cancel may have come from the nursery
            # and belongs to it.
            if isinstance(exc, trio.Cancelled):
                await self._scope.__aexit__(exc_type, exc, tb)
            else:
                await self._scope.__aexit__(None, None, None)
        except trio.Cancelled:
            # The body's error is on its way out and says more; a cancel that stands is met again at
            # the next checkpoint.
            if exc is None or isinstance(exc, trio.Cancelled):
                raise
        finally:
            await self.node.__aexit__(exc_type, exc, tb)

    async def issue_call(
        self,
        method: str,
        /,
        *args: Any,
        address: str | None = None,
        notification: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - the error has to say who did not answer, and in how many seconds
    ) -> Any:
        """Call a method and return its result.

        A checkpoint. A cancel before the request is sent leaves nothing sent. After it, or when the
        time is over, the service is told that nobody waits any more, and its answer is dropped: a
        service of rt stops a method that is not urgent.

        Args:
            method: Name of the method.
            args: Its arguments: None, bool, int (64 bits), float, str, bytes, sequences and
                mappings.
            address: Identity of the service, e.g. `device-service`.
            notification: Want no answer: return None as soon as the message is on its way.
            timeout: How long to wait, sending included, in s.

        Raises:
            RemoteCallError: The service answered with an error (its message and context), no such
                service is connected, it has ended meanwhile, nobody answered in time, or there was
                nobody to send to.
            LocalProtocolError: An argument cannot be sent, no service is named, or no method can
                have that name.
            trio.ClosedResourceError: The client is not open.
        """
        name = address or self._address or ""
        if self.node.routed and not name:
            raise LocalProtocolError(f"{method}: say which service to call", method=method)
        if not 1 <= len(method) <= rpc.METHOD_MAX:  # a service does not answer it
            raise LocalProtocolError(
                f"a method has a name of 1 to {rpc.METHOD_MAX} characters, not of {len(method)}: {clip(method)}"
            )
        peer = name.encode()
        seconds = self._timeout if timeout is None else timeout
        place = {"method": method, "address": name or self.node.display_address, "timeout": seconds}
        self.counters.calls += 1
        if notification:
            payload = rpc.encode(rpc.Notification(method, list(args)))
            if not await self._send(peer, payload, seconds):
                raise self._unsent(place)
            return None

        call_id, call = self._open_call(peer)
        sent = False
        try:
            payload = rpc.encode(rpc.Request(call_id, method, list(args)))
            with trio.move_on_after(seconds):
                try:
                    await self.node.post(peer, payload)
                except trio.TooSlowError:
                    pass
                else:
                    sent = True
                    await self._announce()
                    await call.answered.wait()
        finally:
            del self._calls[call_id]
            if sent and call.answer is None and not call.peer_lost:
                await self._take_back(peer, call_id)
        if not sent:
            raise self._unsent(place)
        return self._result(call, place)

    async def _announce(self) -> None:
        """Ask the router for `rpc.GONE`; again with later calls, because the connection may be a new one."""
        now = trio.current_time()
        if self.node.routed and now - self._announced_at >= ANNOUNCE_INTERVAL:
            self._announced_at = now
            await self.node.post(b"", rpc.ANNOUNCEMENT)

    def _result(self, call: _OpenCall, place: dict[str, Any]) -> Any:
        if call.peer_lost:
            raise RemoteCallError(
                f"{place['address']} has ended without an answer to {place['method']}; `rt logs` says why it ended",
                **place,
            )
        if call.answer is None:
            self.counters.timeouts += 1
            raise RemoteCallError(
                f"{place['address']} did not answer {place['method']} within {place['timeout']:g} s",
                **place,
            )
        if call.answer.error is not None:
            message, context = call.answer.error
            raise RemoteCallError(message, **context)
        return call.answer.result

    async def _take_back(self, peer: bytes, call_id: int) -> None:
        """Say that nobody waits for an answer any more, if that can be said at once; whoever leaves is not held up."""
        payload = rpc.encode(rpc.Notification(rpc.CANCEL, [call_id]))
        with (
            trio.CancelScope(deadline=trio.current_time() + CANCEL_TIME, shield=True),
            contextlib.suppress(trio.TooSlowError, trio.ClosedResourceError),
        ):
            await self.node.send(peer, payload)

    async def _send(self, peer: bytes, payload: bytes, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            try:
                await self.node.send(peer, payload)
            except trio.TooSlowError:
                return False
            return True
        return False

    def _unsent(self, place: dict[str, Any]) -> RemoteCallError:
        return RemoteCallError(
            f"{place['method']} was not sent: nothing takes calls at {self.node.display_address}; is the robot running?",
            **place,
        )

    def _open_call(self, peer: bytes) -> tuple[int, _OpenCall]:
        while self._next_id in self._calls:
            self._next_id = (self._next_id + 1) & rpc.ID_MAX
        call_id = self._next_id
        self._next_id = (call_id + 1) & rpc.ID_MAX
        call = self._calls[call_id] = _OpenCall(peer)
        return call_id, call

    async def _receive(self) -> None:
        while True:
            peer, payload = await self.node.recv()
            if not payload:
                continue
            try:
                message = rpc.decode(payload)
            except RemoteProtocolError:
                self.counters.malformed += 1
                continue
            if (
                isinstance(message, rpc.Notification)
                and message.method == rpc.GONE
                and self.node.routed
                and not peer
            ):
                self._lose_peer({each for each in message.params if isinstance(each, bytes)})
                continue
            if not isinstance(message, rpc.Response):
                self.counters.malformed += 1
                continue
            call = self._calls.get(message.id)
            # A router tells who answers: another service's answer is not this call's, whatever its
            # number.
            if call is None or call.answer is not None or (self.node.routed and peer != call.peer):
                self.counters.late += 1
                continue
            call.answer = message
            call.answered.set()

    def _lose_peer(self, gone: set[bytes]) -> None:
        """End the calls of services that a router knows to have gone."""
        for call in self._calls.values():
            if call.peer in gone and call.answer is None:
                call.peer_lost = True
                call.answered.set()
