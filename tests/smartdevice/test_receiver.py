"""One task receives from all links: nothing is lost, nobody waits for another, and it rests while much arrives."""

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
    """Links and the devices' ends of their lines."""
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


class Taker:
    """Takes so many bytes, and tells when it has them."""

    def __init__(self, size: int) -> None:
        self.got = b""
        self.full = trio.Event()
        self._size = size

    def __call__(self, data: bytes) -> bool:
        self.got += data
        if len(self.got) >= self._size:
            self.full.set()
        return True


async def test_many_lines_are_received_from_each_in_order() -> None:
    said = bytes(range(256)) * 64
    async with tcp_lines(40) as lines, running() as (receiver, nursery):
        takers = [Taker(len(said)) for _ in lines]
        for (link, device), taker in zip(lines, takers, strict=True):
            nursery.start_soon(receiver.receive, link, taker)
            nursery.start_soon(device.send_all, said)
        for taker in takers:
            await taker.full.wait()
            assert taker.got == said


async def test_a_flood_on_one_line_keeps_nobody_waiting() -> None:
    async with tcp_lines(2) as ((loud, flood), (quiet, device)), running() as (receiver, nursery):

        async def pour() -> None:
            while True:
                await flood.send_all(b"\x55" * 2**16)

        nursery.start_soon(pour)
        much = Taker(2**20)
        nursery.start_soon(receiver.receive, loud, much)
        for number in range(1, 20):
            await device.send_all(bytes([number]))
            taker = Taker(1)
            async with trio.open_nursery() as inner:
                inner.start_soon(receiver.receive, quiet, taker)
                await taker.full.wait()
                inner.cancel_scope.cancel()
            assert taker.got == bytes([number])
        await much.full.wait()


async def test_nothing_is_read_that_cannot_be_taken() -> None:
    async with tcp_lines(1) as ((link, device),), running() as (receiver, _):
        got: list[bytes] = []

        def take(data: bytes) -> bool:
            got.append(data)
            return False

        await device.send_all(b"x" * 5000)
        await receiver.receive(link, take)
        assert len(got) == 1
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(got) == 1
        while len(b"".join(got)) < 5000:
            await receiver.receive(link, take)
        assert max(map(len, got)) <= 1024


async def test_what_a_taker_raises_is_the_error_of_its_own_task() -> None:
    async with tcp_lines(2) as ((bad, first), (good, second)), running() as (receiver, nursery):

        def fail(data: bytes) -> bool:
            raise RuntimeError(f"cannot take {data!r}")

        taker = Taker(1)
        nursery.start_soon(receiver.receive, good, taker)
        await first.send_all(b"x")
        with pytest.raises(RuntimeError, match="cannot take b'x'"):
            await receiver.receive(bad, fail)
        await second.send_all(b"y")
        await taker.full.wait()


async def test_a_line_may_end_another_in_the_same_sweep() -> None:
    async with tcp_lines(2) as lines, running() as (receiver, nursery):
        ended: list[int] = []
        scopes = [trio.CancelScope(), trio.CancelScope()]

        async def feed(number: int) -> None:
            def take(_: bytes) -> bool:
                ended.append(number)
                other = lines[1 - number][0]
                assert other.on_closing is not None
                other.on_closing()
                return True

            with scopes[number], pytest.raises(trio.ClosedResourceError):
                await receiver.receive(lines[number][0], take)

        for _, device in lines:
            await device.send_all(b"x")
        async with trio.open_nursery() as inner:
            inner.start_soon(feed, 0)
            inner.start_soon(feed, 1)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert len(ended) == 1  # the other was not served any more
            for scope in scopes:
                scope.cancel()
        del nursery


async def test_when_the_receiver_ends_each_task_receives_for_itself() -> None:
    receiver = Receiver()
    async with tcp_lines(1) as ((link, device),), trio.open_nursery() as nursery:
        async with trio.open_nursery() as inner:
            await inner.start(receiver.run)
            taker = Taker(2)
            nursery.start_soon(receiver.receive, link, taker)
            await device.send_all(b"x")
            with trio.fail_after(30):
                while not taker.got:  # noqa: ASYNC110 - a taker rings no bell for less than it wants
                    await trio.sleep(0.001)
            inner.cancel_scope.cancel()
        await device.send_all(b"y")
        with trio.fail_after(30):
            await taker.full.wait()
        nursery.cancel_scope.cancel()


async def test_a_link_in_memory_is_received_from_too() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with running() as (receiver, _):
        taker = Taker(2)
        await theirs.send_all(b"xy")
        await theirs.aclose()
        with pytest.raises(LinkGoneError):
            await receiver.receive(StreamLink(ours, "line"), taker)
        assert taker.got == b"xy"


@given(st.lists(st.floats(1.25 / BUSY_RATE, 1.0), min_size=1, max_size=200))
def test_lines_that_say_little_are_never_left_alone(gaps: list[float]) -> None:
    pace = Coalescing()
    for now in itertools.accumulate(gaps, initial=100.0):
        assert pace.after(1, now) == 0


def test_the_lines_are_left_alone_while_much_arrives_and_not_after_that() -> None:
    pace = Coalescing()
    now = 100.0
    pauses = []
    for _ in range(3 * BUSY_RATE):
        now += 0.5 / BUSY_RATE
        pauses.append(pace.after(1, now))
    assert pauses[-1] == COALESCE_TIME
    pace.after(0, now + 1)
    assert pace.after(1, now + 1.001) == 0
