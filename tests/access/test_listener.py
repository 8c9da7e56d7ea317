"""Listeners and the connection limiter: pausing, resuming, and service under a flood."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
import zmq

from rt.access.authenticator import Authenticator
from rt.access.keyring import Keyring
from rt.access.listener import (
    CONNECTIONS,
    DESCRIPTORS,
    ConnectionLimiter,
    Listener,
    descriptors_in_use,
)
from rt.errors import ConfigError, InstanceBusyError
from rt.remote import Client, Handler, Router, Service, SocketNode, route

Context = zmq.Context[zmq.Socket[bytes]]


class Greeter(Handler):
    @route(inline=True)
    def greet(self, name: str) -> str:
        return f"hello {name}"


@pytest.fixture
def listener() -> Iterator[Listener]:
    with contextlib.closing(Listener("tcp://127.0.0.1:*")) as listener:
        yield listener


def port_of(listener: Listener) -> int:
    return int(listener._socket.getsockname()[1])


async def accepts(listener: Listener, *, within: float = 20) -> bool:
    """Return whether a connection is accepted within a time, in s."""
    async with await trio.open_tcp_stream("127.0.0.1", port_of(listener)):
        with trio.move_on_after(within):
            (await listener.accept()).close()
            return True
    return False


async def test_limiter_pauses_and_resumes_and_logs_once(listener: Listener) -> None:
    limiter = ConnectionLimiter()
    limiter.add(listener)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            limiter.limit = descriptors_in_use()
            limiter.check()
            limiter.check()
            assert not await accepts(listener, within=0.2)
            limiter.limit = 2 * descriptors_in_use()
            limiter.check()
            assert await accepts(listener)
    assert [event["event"] for event in logs] == ["too many connections; not accepting new ones"]


async def test_pause_affects_a_waiting_accept(listener: Listener, nursery: trio.Nursery) -> None:
    accepted = trio.Event()

    async def accept() -> None:
        (await listener.accept()).close()
        accepted.set()

    nursery.start_soon(accept)
    await trio.testing.wait_all_tasks_blocked()
    listener.pause()
    async with await trio.open_tcp_stream("127.0.0.1", port_of(listener)):
        with trio.move_on_after(0.2):
            await accepted.wait()
        assert not accepted.is_set()
        listener.resume()
        with trio.fail_after(20):
            await accepted.wait()


async def test_paused_listeners_resume_automatically(
    listener: Listener, nursery: trio.Nursery
) -> None:
    limiter = ConnectionLimiter()
    limiter.add(listener)
    nursery.start_soon(limiter.run)
    limiter.limit = 0
    limiter.check()
    assert not await accepts(listener, within=0.2)
    limiter.limit = 1000
    assert await accepts(listener)


async def test_listener_added_while_paused_is_paused(listener: Listener) -> None:
    limiter = ConnectionLimiter()
    with contextlib.closing(Listener("tcp://127.0.0.1:*")) as first:
        limiter.add(first)
        limiter.limit = 0
        limiter.check()
        limiter.add(listener)
        assert not await accepts(listener, within=0.2)


@pytest.mark.parametrize(("allowed", "limit"), [(1024, 256), (DESCRIPTORS, CONNECTIONS)])
def test_limit_depends_on_the_allowed_descriptors(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, allowed: int, limit: int
) -> None:
    monkeypatch.setattr("rt.access.listener.allow_descriptors", lambda _: allowed)
    limiter = ConnectionLimiter()
    limiter.add(listener)
    assert limiter.limit == limit


@pytest.mark.parametrize("host", ["*", "127.0.0.1", "lo", "localhost"])
def test_hosts_have_the_same_form_as_in_zmq(host: str) -> None:
    with contextlib.closing(Listener(f"tcp://{host}:0")) as listener:
        assert listener._socket.getsockname()[0] == ("0.0.0.0" if host == "*" else "127.0.0.1")


def test_error_for_an_address_that_cannot_be_bound(listener: Listener) -> None:
    with pytest.raises(InstanceBusyError, match="--port-base"):
        Listener(f"tcp://127.0.0.1:{port_of(listener)}")
    for address in (
        "tcp://192.0.2.1:6000",
        "tcp://127.0.0.1:x",
        "tcp://127.0.0.1:99999",
        "tcp://no.such.invalid:1",
    ):
        with pytest.raises(ConfigError, match="cannot bind"):
            Listener(address)


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[tuple[Authenticator, str, str]]:
    """An authenticator, and the TCP address and the socket file of a router without keys."""
    context: Context = zmq.Context()
    authenticator = Authenticator(Keyring(tmp_path / "keys"), context=context)
    router = Router(
        ["tcp://127.0.0.1:*", f"ipc://{tmp_path}/f"],
        [f"ipc://{tmp_path}/b"],
        context=context,
        authenticator=authenticator,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(authenticator.run)
        await nursery.start(router.run)
        node = SocketNode(
            zmq.DEALER, "greeter-service", connections=router.backends, context=context
        )
        await nursery.start(Service(node, Greeter()).run)
        yield authenticator, router.frontends[0], router.frontends[1]
        nursery.cancel_scope.cancel()
    context.destroy(linger=0)


async def test_silent_connections_leave_descriptors_for_everything_else(
    front: tuple[Authenticator, str, str],
) -> None:
    authenticator, over_tcp, over_file = front
    authenticator._limiter.limit = descriptors_in_use() + 50
    async with Client(
        SocketNode(zmq.DEALER, connections=[over_tcp]), address="greeter-service", timeout=20
    ) as early:
        await early.call.greet("robot")
        with (
            structlog.testing.capture_logs() as logs,
            contextlib.ExitStack() as stack,
            trio.fail_after(20),
        ):
            host, port = over_tcp.removeprefix("tcp://").split(":")
            while not logs:
                silent = stack.enter_context(socket.socket())
                silent.setblocking(False)
                silent.connect_ex((host, int(port)))
                await trio.sleep(0.001)
            late = Client(
                SocketNode(zmq.DEALER, connections=[over_file]),
                address="greeter-service",
                timeout=20,
            )
            async with late:
                assert (
                    await early.call.greet("robot")
                    == await late.call.greet("robot")
                    == "hello robot"
                )
