"""Every kind of link keeps one contract, and what is peculiar to each."""

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


@pytest.mark.parametrize("kind", LINES)
async def test_every_link_keeps_the_contract(kind: str) -> None:
    await check_link(LINES[kind])


@contextmanager
def counted_reads(
    monkeypatch: pytest.MonkeyPatch, fd: int, answer: bytes | None = None
) -> Iterator[list[int]]:
    """The reads of a descriptor; they give ``answer`` instead of what is there, if it is not None."""
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
async def test_a_serial_port_that_is_readable_and_empty_is_not_spun_on(
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
async def test_a_serial_port_that_was_hung_up_is_read_once_and_gone(
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


async def test_an_idle_serial_line_is_not_read_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(serial_line)() as line:
        fd = line.link.fileno()
        assert fd is not None
        with counted_reads(monkeypatch, fd) as reads, trio.move_on_after(0.1):
            await line.receive()
        assert not reads


@pytest.mark.parametrize("is_watched", [False, True])
async def test_a_connection_that_is_reset_is_gone(is_watched: bool) -> None:
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


async def test_a_serial_port_is_held_exclusively_and_does_not_hang_up() -> None:
    master, slave = os.openpty()
    port = os.ttyname(slave)
    link = await SerialLink.open(port)
    try:
        assert not termios.tcgetattr(slave)[2] & termios.HUPCL
        with pytest.raises(OSError, match="another program") as caught:
            await SerialLink.open(port)
        assert caught.value.errno == errno.EBUSY
        await link.aclose()
        assert (
            not termios.tcgetattr(slave)[2] & termios.HUPCL
        )  # closing would let DTR fall, and reset the board
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


class HangingBoard:
    """A port that the kernel takes long to open and to set up, as that of a USB board that hangs, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.master, self.slave = os.openpty()
        self.port = os.ttyname(self.slave)
        self.go = threading.Event()
        self.done = threading.Event()
        self.opened: list[int] = []
        self._really_open, self._really_set = os.open, termios.tcsetattr
        monkeypatch.setattr(os, "open", self._open)
        monkeypatch.setattr(termios, "tcsetattr", self._set)
        monkeypatch.delattr(
            AbstractSerialStream, "__del__"
        )  # which would close what rt forgets, sooner or later

    def _hang(self) -> None:
        assert threading.current_thread() is not threading.main_thread(), (
            "the event loop would stand still"
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


async def test_the_event_loop_goes_on_while_a_port_is_opened_that_hangs(
    board: HangingBoard,
) -> None:
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


async def test_a_port_that_hangs_keeps_nobody_from_stopping_and_is_closed_in_the_end(
    board: HangingBoard,
) -> None:
    with trio.move_on_after(0.01) as scope:
        await SerialLink.open(board.port)
    assert scope.cancelled_caught
    assert not board.opened
    board.go.set()
    with trio.fail_after(10):
        while not board.opened or is_open(board.opened[0]):  # noqa: ASYNC110 - a thread that nobody waits for
            await trio.sleep(0.001)
    assert len(board.opened) == 1


async def test_a_port_that_was_opened_as_nobody_wanted_it_any_more_is_closed(
    board: HangingBoard,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(SerialLink.open, board.port)
        await trio.testing.wait_all_tasks_blocked()
        board.go.set()
        assert board.done.wait(10)  # the event loop hears of neither before both have happened
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
