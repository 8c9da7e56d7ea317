"""The contract of links, tested on real lines, also when the shared receiver reads them.

`check_link` tests all of it; a new class of link has to be added to `LINES`.
"""

import contextlib
import os
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from rt.link.link import Link, LinkGoneError, StreamLink
from rt.link.serial import SerialLink
from rt.link.tcp import SocketLink
from rt.smartdevice.receiver import Receiver

Receive = Callable[[], Awaitable[bytes]]


@dataclass
class Line:
    """A link, how data is received from it, and the device's end of its line."""

    link: Link
    receive: Receive
    write: Callable[[bytes], Awaitable[None]]
    read_some: Callable[[], Awaitable[bytes]]
    unplug: Callable[[], Awaitable[None]]

    async def read_until(self, end: bytes) -> bytes:
        got = await self.read_some()
        while not got.endswith(end):
            got += await self.read_some()
        return got

    async def read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            got += await self.read_some()
        return got


@contextlib.asynccontextmanager
async def serial_line() -> AsyncIterator[Line]:
    """A serial port: the slave of a pseudo-terminal whose master is the device."""
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
        yield Line(link, link.receive, write, read_some, unplug)
    finally:
        await unplug()
        await link.aclose()


@contextlib.asynccontextmanager
async def stream_line(
    ours: trio.abc.Stream, theirs: trio.abc.Stream, link: Link | None = None
) -> AsyncIterator[Line]:
    async def read_some() -> bytes:
        return bytes(await theirs.receive_some())

    link = link or StreamLink(ours, "line")
    async with ours, theirs:
        yield Line(link, link.receive, theirs.send_all, read_some, theirs.aclose)


@contextlib.asynccontextmanager
async def tcp_line() -> AsyncIterator[Line]:
    """A TCP connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.testing.open_stream_to_socket_listener(listener)
        theirs = await listener.accept()
    assert isinstance(ours, trio.SocketStream)
    async with stream_line(ours, theirs, SocketLink(ours, "line")) as line:
        yield line


@contextlib.asynccontextmanager
async def memory_line() -> AsyncIterator[Line]:
    """A pair of streams in memory; a send continues when the device has read."""
    ours, theirs = trio.testing.memory_stream_pair()
    has_read = trio.Event()

    async def stall() -> None:
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


OpenLine = Callable[[], contextlib.AbstractAsyncContextManager[Line]]


def watched(open_line: OpenLine) -> OpenLine:
    """Return the same line, received from by the shared receiver."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Line]:
        async with open_line() as line, trio.open_nursery() as nursery:
            receiver = Receiver()
            await nursery.start(receiver.run)

            async def receive() -> bytes:
                chunks: list[bytes] = []

                def consume(data: bytes) -> bool:
                    chunks.append(data)
                    return False

                await receiver.receive(line.link, consume)
                (chunk,) = chunks
                return chunk

            line.receive = receive
            yield line
            nursery.cancel_scope.cancel()

    return opened


LINES: dict[str, OpenLine] = {
    "serial": serial_line,
    "tcp": tcp_line,
    "memory": memory_line,
    "serial, watched": watched(serial_line),
    "tcp, watched": watched(tcp_line),
    "memory, watched": watched(memory_line),
}


async def send_for_ever(link: Link) -> None:
    while True:
        await link.send(b"ping\0")


async def check_link(open_line: OpenLine) -> None:
    """Test every clause of the contract, each on a new line."""
    for clause in CLAUSES:
        try:
            with trio.fail_after(30):
                async with open_line() as line:
                    await clause(line)
        except BaseException as error:
            error.add_note(f"violated clause: {clause.__name__}")
            raise


async def bytes_pass_unchanged_both_ways(line: Line) -> None:
    everything = bytes(range(256)) * 9  # more than one chunk
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.link.send, everything)
        assert await line.read(len(everything)) == everything
        nursery.start_soon(line.write, everything)
        got = b""
        while len(got) < len(everything):
            chunk = await line.receive()
            assert chunk
            got += chunk
        assert got == everything


async def cancelled_receive_loses_nothing(line: Line) -> None:
    for _ in range(3):
        with trio.move_on_after(0):
            await line.receive()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.receive)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.write, b"x")
        assert await line.receive() == b"x"


async def send_after_truncated_write_starts_with_delimiter(line: Line) -> None:
    flood = b"\x55" * 2**22  # more than any line takes
    with trio.move_on_after(0.05) as scope:
        await line.link.send(flood)
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.link.send, b"whole\0")
        assert (await line.read_until(b"whole\0")).endswith(b"\0whole\0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.link.send, b"next\0")
        assert await line.read(5) == b"next\0"


async def send_nowait_is_complete_or_returns_false(line: Line) -> None:
    frame = b"\x55" * 99 + b"\0"
    taken = 0
    while line.link.send_nowait(frame):
        taken += 1
    assert not line.link.send_nowait(frame)  # nothing overtakes a frame that has to be sent again
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.link.send, b"whole\0")
        *pieces, end = (await line.read_until(b"whole\0")).split(b"\0")
    assert (pieces[-1], end) == (b"whole", b"")
    assert pieces[:taken] == [frame[:-1]] * taken
    assert all(frame.startswith(piece) for piece in pieces[taken:-1])
    assert len(pieces) <= taken + 2


async def disconnection_ends_receive_and_send(line: Line) -> None:
    await line.unplug()
    for _ in range(2):
        with pytest.raises(LinkGoneError, match="disconnected"):
            await line.receive()
    with pytest.raises(LinkGoneError):
        await send_for_ever(line.link)


async def disconnection_ends_a_waiting_receive(line: Line) -> None:
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(LinkGoneError):
                await line.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await line.unplug()


async def closing_ends_a_waiting_receive_and_further_use(line: Line) -> None:
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await line.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await line.link.aclose()
        await line.link.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await line.link.send(b"\0")
    with pytest.raises(trio.ClosedResourceError):
        await line.receive()
    assert not line.link.send_nowait(b"\0")
    assert line.link.fileno() is None


CLAUSES: tuple[Callable[[Line], Awaitable[None]], ...] = (
    bytes_pass_unchanged_both_ways,
    cancelled_receive_loses_nothing,
    send_after_truncated_write_starts_with_delimiter,
    send_nowait_is_complete_or_returns_false,
    disconnection_ends_receive_and_send,
    disconnection_ends_a_waiting_receive,
    closing_ends_a_waiting_receive_and_further_use,
)
