"""Every kind of link passes one contract, on the real thing."""

import contextlib
import errno
import os
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing

from rt.smartdevice.link import Link, LinkGoneError, SerialLink, SocketLink, StreamLink


@dataclass
class Line:
    """A link and the device's end of its line."""

    link: Link
    write: Callable[[bytes], Awaitable[None]]
    read_some: Callable[[], Awaitable[bytes]]
    unplug: Callable[[], Awaitable[None]]

    async def read_until(self, end: bytes) -> bytes:
        got = await self.read_some()
        while not got.endswith(end):
            got = got[-64:] + await self.read_some()
        return got

    async def read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            got += await self.read_some()
        return got


@contextlib.asynccontextmanager
async def serial_line() -> AsyncIterator[Line]:
    master, slave = os.openpty()
    tty.setraw(master)
    os.set_blocking(master, False)
    link = await SerialLink.open(os.ttyname(slave))
    os.close(slave)
    closed = False

    async def write(data: bytes) -> None:
        while data:
            await trio.lowlevel.wait_writable(master)
            data = data[os.write(master, data) :]

    async def read_some() -> bytes:
        await trio.lowlevel.wait_readable(master)
        return os.read(master, 4096)

    async def unplug() -> None:
        nonlocal closed
        if not closed:
            closed = True
            os.close(master)
        await trio.lowlevel.checkpoint()

    try:
        yield Line(link, write, read_some, unplug)
    finally:
        await unplug()
        await link.aclose()


@contextlib.asynccontextmanager
async def stream_line(ours: trio.abc.Stream, theirs: trio.abc.Stream, link: Link | None = None) -> AsyncIterator[Line]:
    async def read_some() -> bytes:
        return bytes(await theirs.receive_some())

    async with ours, theirs:
        yield Line(link or StreamLink(ours, "line"), theirs.send_all, read_some, theirs.aclose)


@contextlib.asynccontextmanager
async def tcp_line() -> AsyncIterator[Line]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.testing.open_stream_to_socket_listener(listener)
        theirs = await listener.accept()
    assert isinstance(ours, trio.SocketStream)
    async with stream_line(ours, theirs, SocketLink(ours, "line")) as line:
        yield line


@contextlib.asynccontextmanager
async def memory_line() -> AsyncIterator[Line]:
    ours, theirs = trio.testing.memory_stream_pair()
    has_read = trio.Event()

    async def stall() -> None:
        # A stream in memory takes everything at once; this one goes on when the device has read.
        nonlocal has_read
        await pump()
        await has_read.wait()
        has_read = trio.Event()

    pump = ours.send_stream.send_all_hook or trio.lowlevel.checkpoint
    ours.send_stream.send_all_hook = stall
    async with stream_line(ours, theirs) as line:
        really_read_some = line.read_some

        async def read_some() -> bytes:
            got = await really_read_some()
            has_read.set()
            return got

        line.read_some = read_some
        yield line


LINES = {"serial": serial_line, "tcp": tcp_line, "memory": memory_line}
OpenLine = Callable[[], contextlib.AbstractAsyncContextManager[Line]]


@pytest.fixture(params=LINES)
def open_line(request: pytest.FixtureRequest) -> OpenLine:
    @contextlib.asynccontextmanager
    async def within_a_deadline() -> AsyncIterator[Line]:
        with trio.fail_after(10):
            async with LINES[request.param]() as line:
                yield line

    return within_a_deadline


async def send(link: Link, data: bytes) -> None:
    await link.send(data)


async def send_for_ever(link: Link) -> None:
    while True:
        await link.send(b"anybody?\0")


async def test_bytes_pass_unchanged_both_ways(open_line: OpenLine) -> None:
    everything = bytes(range(256))
    async with open_line() as line, trio.open_nursery() as nursery:
        nursery.start_soon(send, line.link, everything)
        assert await line.read(256) == everything
        nursery.start_soon(line.write, everything)
        got = b""
        while len(got) < 256:
            piece = await line.link.receive()
            assert piece
            got += piece
        assert got == everything


async def test_a_cancelled_receive_loses_nothing(open_line: OpenLine) -> None:
    async with open_line() as line, trio.open_nursery() as nursery:
        for _ in range(3):
            with trio.move_on_after(0):
                await line.link.receive()
        nursery.start_soon(line.write, b"x")
        assert await line.link.receive() == b"x"


async def test_after_a_cut_write_the_next_one_starts_with_a_delimiter(open_line: OpenLine) -> None:
    flood = b"\x55" * 2**22  # more than any pipe takes
    async with open_line() as line:
        with trio.move_on_after(0.05) as scope:
            await line.link.send(flood)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, line.link, b"whole\0")
            assert (await line.read_until(b"whole\0")).endswith(b"\0whole\0")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, line.link, b"next\0")
            assert await line.read(5) == b"next\0"


async def test_a_peer_that_leaves_is_gone_for_receive_and_soon_for_send(open_line: OpenLine) -> None:
    async with open_line() as line:
        await line.unplug()
        for _ in range(2):
            with pytest.raises(LinkGoneError, match="is gone"):
                await line.link.receive()
        with pytest.raises(LinkGoneError):
            await send_for_ever(line.link)


async def test_a_peer_that_leaves_ends_a_waiting_receive(open_line: OpenLine) -> None:
    async with open_line() as line, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(LinkGoneError):
                await line.link.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await line.unplug()


async def test_closing_ends_a_waiting_receive_and_twice_is_harmless(open_line: OpenLine) -> None:
    async with open_line() as line, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await line.link.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await line.link.aclose()
        await line.link.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await line.link.send(b"\0")


async def test_an_idle_serial_line_costs_no_time() -> None:
    async with serial_line() as line:
        before = os.times()
        with trio.move_on_after(0.3):
            await line.link.receive()
        after = os.times()
        assert (after.user + after.system) - (before.user + before.system) < 0.1


async def test_a_serial_port_is_held_exclusively_and_does_not_hang_up() -> None:
    master, slave = os.openpty()
    port = os.ttyname(slave)
    link = await SerialLink.open(port)
    try:
        assert not termios.tcgetattr(slave)[2] & termios.HUPCL
        with pytest.raises(OSError, match="another program") as caught:
            await SerialLink.open(port)
        assert caught.value.errno == errno.EBUSY
    finally:
        await link.aclose()
        os.close(master)
        os.close(slave)


async def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await SerialLink.open(str(tmp_path / "ttyACM0"))
    plain = tmp_path / "file"
    plain.touch()
    with pytest.raises(OSError, match="not a serial port"):
        await SerialLink.open(str(plain))
