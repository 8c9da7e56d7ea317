"""Untrusted input to services and routers: robustness and bounded memory."""

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import trio
import trio.testing
import zmq
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.strangers import GREETING, frames_of, introduce, nested, payloads

from rt.errors import DeviceError, RemoteProtocolError
from rt.protocol import rpc
from rt.remote import Client, Handler, Router, Service, SocketNode, route
from rt.transport.counters import Counters
from rt.transport.zmq_socket import Socket

IDENTITIES = int(os.environ.get("STRANGERS", "20000"))
AT_ONCE = 100


class Wire:
    """A node whose other end is the test."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.routed = False
        self.display_address = "a test"
        self.sent: list[tuple[bytes, bytes]] = []
        self.put, self._get = trio.open_memory_channel[tuple[bytes, bytes]](1000)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.put.close()
        self._get.close()

    async def send(self, peer: bytes, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append((peer, payload))

    async def post(self, peer: bytes, payload: bytes) -> None:
        await self.send(peer, payload)

    async def recv(self) -> tuple[bytes, bytes]:
        return await self._get.receive()


class Target(Handler):
    @route
    async def echo(self, value: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return value

    @route(inline=True)
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @route
    async def fail(self, *context: Any) -> None:
        raise DeviceError("failed", **{f"c{at}": value for at, value in enumerate(context)})


@given(payloads())
@example(nested(b"\x91", 1 << 20))
@example(nested(b"\x81\x91", 1 << 19))
def test_decoding_raises_only_protocol_errors(payload: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        message = rpc.decode(payload)
        assert isinstance(message, rpc.Request | rpc.Response | rpc.Notification)


async def test_response_of_another_service_is_ignored() -> None:
    wire = Wire()
    wire.routed = True
    answers: list[Any] = []

    async def call(client: Client) -> None:
        answers.append(await client.issue_call("ask", address="right-service", timeout=30))

    async with Client(wire) as client, trio.open_nursery() as nursery:
        nursery.start_soon(call, client)
        await trio.testing.wait_all_tasks_blocked()
        (peer, payload), announcement = wire.sent
        assert announcement == (b"", rpc.HELLO_MESSAGE)
        request = rpc.decode(payload)
        assert isinstance(request, rpc.Request)
        wire.put.send_nowait(
            (b"wrong-service", rpc.encode(rpc.Response(request.id, None, "forged")))
        )
        await trio.testing.wait_all_tasks_blocked()
        assert client.counters.late == 1
        wire.put.send_nowait((peer, rpc.encode(rpc.Response(request.id, None, "true"))))
    assert answers == ["true"]


@given(st.lists(payloads(), max_size=20))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_service_answers_each_request_once(story: list[bytes]) -> None:
    async def main() -> None:
        wire = Wire()
        service = Service(wire, Target())
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            for payload in story:
                await wire.put.send((b"peer", payload))
            await wire.put.send((b"end", rpc.encode(rpc.Request(1, "echo", ["still here"]))))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        requested = []
        for payload in story:
            with contextlib.suppress(RemoteProtocolError):
                message = rpc.decode(payload)
                requested += [message.id] if isinstance(message, rpc.Request) else []
        answers = [rpc.decode(payload) for peer, payload in wire.sent if peer == b"peer"]
        answered = [each.id for each in answers if isinstance(each, rpc.Response)]
        assert sorted(answered) == sorted(requested)
        assert (b"end", rpc.encode(rpc.Response(1, None, "still here"))) in wire.sent
        assert not service._running

    trio.run(main)


@contextlib.asynccontextmanager
async def routing(tmp_path: Path) -> AsyncIterator[tuple[Router, Client]]:
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            router = Router([f"ipc://{tmp_path}/f"], [f"ipc://{tmp_path}/b"])
            await nursery.start(router.run)
            service = Service(
                SocketNode(zmq.DEALER, "target-service", connections=router.backends), Target()
            )
            await nursery.start(service.run)
            node = SocketNode(zmq.DEALER, "test-client", connections=router.frontends)
            async with Client(node, address="target-service", timeout=30) as client:
                yield router, client
            nursery.cancel_scope.cancel()


def resident() -> float:
    """Return the resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def connect_strangers(path: Path, first: int) -> None:
    """Connect `AT_ONCE` peers with distinct names, exchange messages and disconnect."""
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(AT_ONCE):
            stream = stack.enter_context(socket.socket(socket.AF_UNIX))
            stream.settimeout(30)
            stream.connect(str(path))
            streams.append(stream)
            stream.sendall(GREETING)
        for number, stream in enumerate(streams, first):
            request = rpc.encode(rpc.Request(1, "add", [number]))
            message = (
                frames_of(b"target-service", request)
                + frames_of(b"nobody", request)
                + frames_of(b"", b"")
            )
            introduce(stream, b"stranger %d " % number + b"x" * 150, message)
        for stream in streams:
            received = b""
            while frames_of(b"", b"") not in received:
                received += stream.recv(10_000)


async def test_memory_does_not_grow_with_the_number_of_identities(tmp_path: Path) -> None:
    async with routing(tmp_path) as (router, client):
        middle = 0.0
        for first in range(0, IDENTITIES, AT_ONCE):
            await trio.to_thread.run_sync(connect_strangers, tmp_path / "f", first)
            assert await client.call.add(1) == 2
            if first >= IDENTITIES // 4 and not middle:
                middle = resident()
        assert router.counters.hellos >= IDENTITIES
        assert len(router._peer_tracker) < 3 * AT_ONCE
        assert len(router._services) == 1
        assert resident() < middle + 50


async def test_message_of_64_mib_only_closes_its_connection(tmp_path: Path) -> None:
    async with routing(tmp_path) as (_, client):
        before = resident()
        with Socket(zmq.DEALER) as giant:
            giant.connect(f"ipc://{tmp_path}/f")
            await giant.send([b"target-service", bytes(64 << 20)])
            held = resident()
            for _ in range(50):
                assert await client.call.add(1) == 2
        # The sender is in this process, so its copy counts; the receiver must not hold another.
        assert held - before < 64 + 30


async def test_messages_to_a_peer_that_does_not_read_are_dropped(tmp_path: Path) -> None:
    async with routing(tmp_path) as (router, client):
        small: dict[int, int | bytes] = {zmq.RCVHWM: 1, zmq.RCVBUF: 4096, zmq.ROUTING_ID: b"lazy"}
        with Socket(zmq.DEALER, options=small) as lazy:
            lazy.connect(f"ipc://{tmp_path}/f")
            request = rpc.encode(rpc.Request(1, "echo", [bytes(10_000)]))
            while not router.counters.dropped:
                await lazy.send([b"target-service", request])
                await trio.lowlevel.checkpoint()
            assert await client.call.add(1) == 2


@pytest.mark.parametrize("name", [b"a" * 256, b"\xff" * 300_000, b"a" * 1_000_000])
async def test_error_quotes_the_beginning_of_a_long_recipient(tmp_path: Path, name: bytes) -> None:
    async with routing(tmp_path) as (router, client):
        with Socket(zmq.DEALER) as odd:
            odd.connect(f"ipc://{tmp_path}/f")
            await odd.send([name, rpc.encode(rpc.Request(1, "echo", []))])
            sender, payload = await odd.recv()
        assert sender == name
        answer = rpc.decode(payload)
        assert isinstance(answer, rpc.Response)
        assert answer.error is not None
        assert answer.error[0].startswith(
            f"there is no service {name[:10].decode(errors='backslashreplace')}"
        )
        assert len(payload) < 10_000
        assert await client.call.add(1) == 2
        assert router.counters.answered == 1


@pytest.mark.parametrize("count", [1, 4, 500])
async def test_message_with_wrong_number_of_frames_is_skipped(tmp_path: Path, count: int) -> None:
    async with routing(tmp_path) as (router, client):
        with Socket(zmq.DEALER) as odd:
            odd.connect(f"ipc://{tmp_path}/f")
            await odd.send([b"target-service"] * count)
            while not router.counters.malformed:
                assert await client.call.add(1) == 2
