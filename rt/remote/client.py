"""An RPC client, which calls methods of services through a node.

Invariant: every call ends with the service's result, the service's error, or an error that names
the service and the time limit. A response reaches only the call that it answers; a late response
is dropped and counted. When a call is abandoned, the client sends `rpc.CANCEL`, so that the service
can stop the method.
"""

import contextlib
import functools
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
"""Minimum time between announcements to the router that this client understands `rpc.GONE`, in s.

Announcements are sent only with calls.
"""

CANCEL_TIME = 0.05
"""Time limit for sending `rpc.CANCEL` after an abandoned call, in s."""


class _OpenCall:
    __slots__ = ("answer", "answered", "peer", "peer_lost")

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.answered = trio.Event()
        self.answer: rpc.Response | None = None
        self.peer_lost = False


class MethodProxy:
    """Remote methods as attributes and items.

    For example `client.call.ping("1", address="device-service")` and `client.call["ping"](...)`,
    with the arguments of `Client.issue_call`.
    """

    __slots__ = ("_client",)

    def __init__(self, client: "Client") -> None:
        self._client = client

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return self[method]

    def __getitem__(self, method: str) -> Callable[..., Any]:
        return functools.partial(self._client.issue_call, method)


class Client:
    """An RPC client for any number of concurrent calls; an async context manager.

    >>> async def ask(node: Node) -> object:
    ...     async with Client(node, address="device-service") as client:
    ...         return await client.call.list_uids(timeout=2)

    Args:
        node: Node that carries the calls; the client opens and closes it.
        address: Default service of a call. Not needed without a router.
        timeout: Default time limit of a call, in s.
    """

    def __init__(self, node: Node, *, address: str | None = None, timeout: float = 1.0) -> None:
        self.node = node
        self.counters = ClientCounters()
        self.call = MethodProxy(self)
        self._address = address
        self._timeout = timeout
        # Random, so that responses to an earlier client with the same identity do not match.
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
            # Only a Cancelled may come from the nursery; any other error of the body must leave
            # it unwrapped.
            if isinstance(exc, trio.Cancelled):
                await self._scope.__aexit__(exc_type, exc, tb)
            else:
                await self._scope.__aexit__(None, None, None)
        except trio.Cancelled:
            # The body's error takes precedence; a pending cancel is raised again at the next
            # checkpoint.
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
        timeout: float | None = None,  # noqa: ASYNC109 - the error names the service and the limit
    ) -> Any:
        """Call a method and return its result.

        A checkpoint. If cancelled before the request is sent, nothing is sent. If cancelled later,
        or after a timeout, the client sends `rpc.CANCEL` and drops the response; services of rt
        then stop a method that is not urgent.

        Args:
            method: Name of the method.
            args: Arguments: None, bool, int (64 bits), float, str, bytes, sequences and mappings.
            address: Identity of the service, e.g. `device-service`.
            notification: Send without waiting for a response, and return None.
            timeout: Time limit including the time to send, in s.

        Raises:
            RemoteCallError: The service returned an error (raised with its message and context),
                is not connected, exited before it answered, or did not answer in time; or the
                request could not be sent.
            LocalProtocolError: An argument cannot be encoded, no service is named, or the name of
                the method is empty or too long.
            trio.ClosedResourceError: The client is not open.
        """
        name = address or self._address or ""
        if self.node.routed and not name:
            raise LocalProtocolError(
                f"no service given for {method}; pass an address", method=method
            )
        if not 1 <= len(method) <= rpc.METHOD_MAX:  # services ignore such a request
            raise LocalProtocolError(
                f"invalid method name of {len(method)} characters: {clip(method)}; "
                f"use 1 to {rpc.METHOD_MAX} characters"
            )
        peer = name.encode()
        seconds = self._timeout if timeout is None else timeout
        place = {"method": method, "address": name or self.node.display_address, "timeout": seconds}
        self.counters.calls += 1
        if notification:
            payload = rpc.encode(rpc.Notification(method, list(args)))
            with trio.move_on_after(seconds), contextlib.suppress(trio.TooSlowError):
                await self.node.send(peer, payload)
                return None
            raise self._unsent(place)

        call_id, call = self._open_call(peer)
        sent = False
        try:
            payload = rpc.encode(rpc.Request(call_id, method, list(args)))
            with trio.move_on_after(seconds), contextlib.suppress(trio.TooSlowError):
                await self.node.post(peer, payload)
                sent = True
                await self._announce()
                await call.answered.wait()
        finally:
            del self._calls[call_id]
            if sent and call.answer is None and not call.peer_lost:
                await self._send_cancel(peer, call_id)
        if not sent:
            raise self._unsent(place)
        return self._result(call, place)

    async def _announce(self) -> None:
        """Ask the router for `rpc.GONE`; repeated, because the connection may be a new one."""
        now = trio.current_time()
        if self.node.routed and now - self._announced_at >= ANNOUNCE_INTERVAL:
            self._announced_at = now
            await self.node.post(b"", rpc.HELLO_MESSAGE)

    def _result(self, call: _OpenCall, place: dict[str, Any]) -> Any:
        if call.peer_lost:
            raise RemoteCallError(
                f"{place['address']} exited before it answered {place['method']}; "
                "see `rt logs` for the reason",
                **place,
            )
        if call.answer is None:
            self.counters.timeouts += 1
            raise RemoteCallError(
                f"{place['address']} did not answer {place['method']} "
                f"within {place['timeout']:g} s",
                **place,
            )
        if call.answer.error is not None:
            message, context = call.answer.error
            raise RemoteCallError(message, **context)
        return call.answer.result

    async def _send_cancel(self, peer: bytes, call_id: int) -> None:
        """Send `rpc.CANCEL` within `CANCEL_TIME`, also while this task is being cancelled."""
        payload = rpc.encode(rpc.Notification(rpc.CANCEL, [call_id]))
        with (
            trio.CancelScope(deadline=trio.current_time() + CANCEL_TIME, shield=True),
            contextlib.suppress(trio.TooSlowError, trio.ClosedResourceError),
        ):
            await self.node.send(peer, payload)

    def _unsent(self, place: dict[str, Any]) -> RemoteCallError:
        return RemoteCallError(
            f"cannot send {place['method']}: no robot at {self.node.display_address}; "
            "is the robot running?",
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
            # A router names the sender: a response of another service does not match, even if its
            # id does.
            if call is None or call.answer is not None or (self.node.routed and peer != call.peer):
                self.counters.late += 1
                continue
            call.answer = message
            call.answered.set()

    def _lose_peer(self, gone: set[bytes]) -> None:
        """End the calls to services that have disconnected from the router."""
        for call in self._calls.values():
            if call.peer in gone and call.answer is None:
                call.peer_lost = True
                call.answered.set()
