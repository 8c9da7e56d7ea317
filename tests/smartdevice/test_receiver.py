"""One task receives from all links: it loses no data, starves no line, and coalesces wakeups."""

import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rt.link.link import LinkGoneError, StreamLink
from rt.link.tcp import SocketLink
from rt.smartdevice.receiver import BUSY_RATE, COALESCE_TIME, Coalescing, Receiver


@contextlib.asynccontextmanager
async def tcp_lines(count: int) -> AsyncIterator[list[tuple[SocketLink, trio.SocketStream]]]:
    """Links, and the devices' ends of their lines."""
    async with contextlib.AsyncExitStack() as stack:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await stack.enter_async_context(listener)
        lines = []
        for number in range(count):
            ours = await trio.testing.open_stream_to_socket_listener(listener)
            assert isinstance(ours, trio.SocketStream)
            theirs = await listener.accept()
            await stack.enter_async_context(ours)
            await stack.enter_async_context(theirs)
            lines.append((SocketLink(ours, f"line {number}"), theirs))
        yield lines


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[Receiver, trio.Nursery]]:
    receiver = Receiver()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(receiver.run)
            yield receiver, nursery
            nursery.cancel_scope.cancel()


class Collector:
    """Collects a number of bytes, and sets an event when it has them."""

    def __init__(self, size: int) -> None:
        self.got = b""
        self.full = trio.Event()
        self._size = size

    def __call__(self, data: bytes) -> bool:
        self.got += data
        if len(self.got) >= self._size:
            self.full.set()
        return True


async def test_each_of_many_lines_is_received_in_order() -> None:
    sent = bytes(range(256)) * 64
    async with tcp_lines(40) as lines, running() as (receiver, nursery):
        collectors = [Collector(len(sent)) for _ in lines]
        for (link, device), collector in zip(lines, collectors, strict=True):
            nursery.start_soon(receiver.receive, link, collector)
            nursery.start_soon(device.send_all, sent)
        for collector in collectors:
            await collector.full.wait()
            assert collector.got == sent


async def test_flood_on_one_line_delays_no_other() -> None:
    async with tcp_lines(2) as ((loud, flood), (quiet, device)), running() as (receiver, nursery):

        async def pour() -> None:
            while True:
                await flood.send_all(b"\x55" * 2**16)

        nursery.start_soon(pour)
        much = Collector(2**20)
        nursery.start_soon(receiver.receive, loud, much)
        for number in range(1, 20):
            await device.send_all(bytes([number]))
            collector = Collector(1)
            async with trio.open_nursery() as inner:
                inner.start_soon(receiver.receive, quiet, collector)
                await collector.full.wait()
                inner.cancel_scope.cancel()
            assert collector.got == bytes([number])
        await much.full.wait()


async def test_nothing_is_read_that_cannot_be_consumed() -> None:
    async with tcp_lines(1) as ((link, device),), running() as (receiver, _):
        got: list[bytes] = []

        def consume(data: bytes) -> bool:
            got.append(data)
            return False

        await device.send_all(b"x" * 5000)
        await receiver.receive(link, consume)
        assert len(got) == 1
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(got) == 1
        while len(b"".join(got)) < 5000:
            await receiver.receive(link, consume)
        assert max(map(len, got)) <= 1024


async def test_error_of_consumer_is_raised_in_its_task() -> None:
    async with tcp_lines(2) as ((bad, first), (good, second)), running() as (receiver, nursery):

        def fail(data: bytes) -> bool:
            raise RuntimeError(f"cannot consume {data!r}")

        collector = Collector(1)
        nursery.start_soon(receiver.receive, good, collector)
        await first.send_all(b"x")
        with pytest.raises(RuntimeError, match="cannot consume b'x'"):
            await receiver.receive(bad, fail)
        await second.send_all(b"y")
        await collector.full.wait()


async def test_one_line_may_end_another_in_same_round() -> None:
    async with tcp_lines(2) as lines, running() as (receiver, nursery):
        ended: list[int] = []
        scopes = [trio.CancelScope(), trio.CancelScope()]

        async def receive(number: int) -> None:
            def consume(_: bytes) -> bool:
                ended.append(number)
                other = lines[1 - number][0]
                assert other.on_closing is not None
                other.on_closing()
                return True

            with scopes[number], pytest.raises(trio.ClosedResourceError):
                await receiver.receive(lines[number][0], consume)

        for _, device in lines:
            await device.send_all(b"x")
        async with trio.open_nursery() as inner:
            inner.start_soon(receive, 0)
            inner.start_soon(receive, 1)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert len(ended) == 1  # the other one was not served
            for scope in scopes:
                scope.cancel()
        del nursery


async def test_tasks_receive_themselves_after_receiver_ends() -> None:
    receiver = Receiver()
    async with tcp_lines(1) as ((link, device),), trio.open_nursery() as nursery:
        async with trio.open_nursery() as inner:
            await inner.start(receiver.run)
            collector = Collector(2)
            nursery.start_soon(receiver.receive, link, collector)
            await device.send_all(b"x")
            with trio.fail_after(30):
                while not collector.got:  # noqa: ASYNC110 - no event is set
                    await trio.sleep(0.001)
            inner.cancel_scope.cancel()
        await device.send_all(b"y")
        with trio.fail_after(30):
            await collector.full.wait()
        nursery.cancel_scope.cancel()


async def test_link_in_memory_is_received_from() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with running() as (receiver, _):
        collector = Collector(2)
        await theirs.send_all(b"xy")
        await theirs.aclose()
        with pytest.raises(LinkGoneError):
            await receiver.receive(StreamLink(ours, "line"), collector)
        assert collector.got == b"xy"


@given(st.lists(st.floats(1.25 / BUSY_RATE, 1.0), min_size=1, max_size=200))
def test_quiet_lines_cause_no_pause(gaps: list[float]) -> None:
    coalescing = Coalescing()
    for now in itertools.accumulate(gaps, initial=100.0):
        assert coalescing.after(1, now) == 0


def test_receiver_pauses_only_while_much_arrives() -> None:
    coalescing = Coalescing()
    now = 100.0
    pauses = []
    for _ in range(3 * BUSY_RATE):
        now += 0.5 / BUSY_RATE
        pauses.append(coalescing.after(1, now))
    assert pauses[-1] == COALESCE_TIME
    coalescing.after(0, now + 1)
    assert coalescing.after(1, now + 1.001) == 0
