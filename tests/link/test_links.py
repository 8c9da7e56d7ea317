"""The contract of every link, and what is specific to each."""

import errno
import os
import socket
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from support.link_contract import LINES, OpenLine, check_link, serial_line, watched
from trio_serial.abstract import AbstractSerialStream

from rt.link.link import LinkGoneError
from rt.link.serial import SerialLink
from rt.link.tcp import SocketLink
from rt.smartdevice.receiver import Receiver

BOTH_WAYS = (serial_line, watched(serial_line))


@pytest.mark.parametrize("name", LINES)
async def test_every_link_keeps_the_contract(name: str) -> None:
    await check_link(LINES[name])


@contextmanager
def counted_reads(
    monkeypatch: pytest.MonkeyPatch, fd: int, answer: bytes | None = None
) -> Iterator[list[int]]:
    """Record the reads of a descriptor; they return ``answer`` if it is not None."""
    reads: list[int] = []
    really_read = os.read

    def read(which: int, size: int) -> bytes:
        if which != fd:
            return really_read(which, size)
        reads.append(size)
        return really_read(which, size) if answer is None else answer

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", read)
        yield reads


@pytest.mark.parametrize("open_line", BOTH_WAYS)
async def test_readable_but_empty_serial_port_does_not_spin(
    open_line: OpenLine, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_line() as line:
        await line.write(b"x")
        fd = line.link.fileno()
        assert fd is not None
        with counted_reads(monkeypatch, fd, b"") as reads, trio.move_on_after(1):
            await line.receive()
        assert 1 < len(reads) <= 102


@pytest.mark.parametrize("open_line", BOTH_WAYS)
async def test_hung_up_serial_port_is_read_only_once(
    open_line: OpenLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_line() as line:
        fd = line.link.fileno()
        assert fd is not None
        await line.unplug()
        with counted_reads(monkeypatch, fd) as reads, trio.fail_after(30):
            with pytest.raises(LinkGoneError):
                await line.receive()
            await trio.sleep(0.05)
        assert len(reads) == 1


async def test_idle_serial_line_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(serial_line)() as line:
        fd = line.link.fileno()
        assert fd is not None
        with counted_reads(monkeypatch, fd) as reads, trio.move_on_after(0.1):
            await line.receive()
        assert not reads


@pytest.mark.parametrize("is_watched", [False, True])
async def test_reset_connection_is_gone(is_watched: bool) -> None:
    ours, theirs = await tcp_pair()
    link = SocketLink(ours, "line")
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with ours, trio.open_nursery() as nursery:
        receiver = Receiver()
        await nursery.start(receiver.run)
        theirs.socket.close()
        with pytest.raises(LinkGoneError, match="reset"), trio.fail_after(30):
            await (receiver.receive(link, lambda _: False) if is_watched else link.receive())
        nursery.cancel_scope.cancel()


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.testing.open_stream_to_socket_listener(listener)
        assert isinstance(ours, trio.SocketStream)
        return ours, await listener.accept()


async def test_serial_port_is_exclusive_and_does_not_hang_up() -> None:
    master, slave = os.openpty()
    port = os.ttyname(slave)
    link = await SerialLink.open(port)
    try:
        assert not termios.tcgetattr(slave)[2] & termios.HUPCL
        with pytest.raises(OSError, match="another program") as caught:
            await SerialLink.open(port)
        assert caught.value.errno == errno.EBUSY
        await link.aclose()
        # Otherwise closing would drop DTR and reset the board.
        assert not termios.tcgetattr(slave)[2] & termios.HUPCL
    finally:
        await link.aclose()
        os.close(master)
        os.close(slave)


async def test_failed_open_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await SerialLink.open(str(tmp_path / "ttyACM0"))
    plain = tmp_path / "file"
    plain.touch()
    with pytest.raises(OSError, match="not a serial port"):
        await SerialLink.open(str(plain))


class HangingBoard:
    """A port that blocks the kernel when it is opened and set up, as a hanging USB board does.

    It blocks until ``go`` is set.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.master, self.slave = os.openpty()
        self.port = os.ttyname(self.slave)
        self.go = threading.Event()
        self.done = threading.Event()
        self.opened: list[int] = []
        self._really_open, self._really_set = os.open, termios.tcsetattr
        monkeypatch.setattr(os, "open", self._open)
        monkeypatch.setattr(termios, "tcsetattr", self._set)
        # It would close what rt forgets to close.
        monkeypatch.delattr(AbstractSerialStream, "__del__")

    def _hang(self) -> None:
        assert threading.current_thread() is not threading.main_thread(), (
            "the event loop would block"
        )
        assert self.go.wait(10)

    def _set(self, *args: Any) -> None:
        self._hang()
        self._really_set(*args)
        self.done.set()

    def _open(self, path: str, *args: Any, **options: Any) -> int:
        if path == self.port:
            self._hang()
        fd = self._really_open(path, *args, **options)
        if path == self.port:
            self.opened.append(fd)
        return fd

    def close(self) -> None:
        self.go.set()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingBoard]:
    hanging = HangingBoard(monkeypatch)
    yield hanging
    hanging.close()


async def test_hanging_port_does_not_block_the_event_loop(board: HangingBoard) -> None:
    links = []
    async with trio.open_nursery() as nursery:

        async def open_port() -> None:
            links.append(await SerialLink.open(board.port))

        nursery.start_soon(open_port)
        await trio.testing.wait_all_tasks_blocked()
        assert not links
        board.go.set()
    (link,) = links
    assert board.opened == [link.fileno()]
    await link.aclose()


async def test_cancelled_open_of_hanging_port_closes_it_later(board: HangingBoard) -> None:
    with trio.move_on_after(0.01) as scope:
        await SerialLink.open(board.port)
    assert scope.cancelled_caught
    assert not board.opened
    board.go.set()
    with trio.fail_after(10):
        while not board.opened or is_open(board.opened[0]):  # noqa: ASYNC110 - an abandoned thread
            await trio.sleep(0.001)
    assert len(board.opened) == 1


async def test_port_opened_during_cancellation_is_closed(board: HangingBoard) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(SerialLink.open, board.port)
        await trio.testing.wait_all_tasks_blocked()
        board.go.set()
        assert board.done.wait(10)  # the event loop sees both together
        nursery.cancel_scope.cancel()
    with trio.fail_after(10):
        while is_open(board.opened[0]):  # noqa: ASYNC110 - a thread that nobody waits for
            await trio.sleep(0.001)
    assert len(board.opened) == 1


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
