"""The last DEV_DISABLE of a client reaches its board, unless the board is gone or stuck for 1 s."""

import fcntl
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import structlog
import trio
import trio.testing
from support.stalled import Board, stalling_board

from rt.brake import output_queue
from rt.brake.line import Line
from rt.brake.output_queue import TIME_LIMIT
from rt.link.serial import DRAIN_TIMEOUT, SerialLink
from rt.link.tcp import SocketLink
from rt.smartdevice.client import SmartDeviceClient
from rt.smartdevice.sender import DISABLE_FRAME

GARBAGE = b"\xaa"


class WriteGuard:
    allowed = 0

    def note_dropped(self, port: str, count: int, tokens: int) -> None:
        pass


class Leaving:
    """A client of a serial port that is about to end."""

    def __init__(self, board: Board, link: SerialLink, nursery: trio.Nursery) -> None:
        self.board = board
        self.link = link
        self.closings = 0
        self.client = SmartDeviceClient(link, WriteGuard(), on_closing=self._note)
        self.began = 0.0
        self._nursery = nursery
        fd = link.fileno()
        assert fd is not None
        self.fd = fd

    def _note(self) -> None:
        self.closings += 1

    async def begin(self) -> None:
        """Run the client, and discard what its board has received at the beginning."""
        self._nursery.start_soon(self.client.run)
        await trio.testing.wait_all_tasks_blocked()
        self.board.take()
        self.board.received = b""

    async def end(self) -> None:
        self.began = trio.current_time()
        self._nursery.start_soon(self.client.drop)
        await trio.testing.wait_all_tasks_blocked()

    async def ended(self) -> float:
        """Wait for the end, and return how long it took (s)."""
        with trio.fail_after(60):
            await self.client.ended.wait()
        return trio.current_time() - self.began

    def last_heard(self) -> bytes:
        """Return what the board receives after the last filler byte."""
        return self.board.take().rpartition(GARBAGE)[2]


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    with stalling_board(monkeypatch) as made:
        yield made


@pytest.fixture
async def leaving(
    board: Board, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> AsyncIterator[Leaving]:
    made = Leaving(board, await SerialLink.open(board.name), nursery)
    await made.begin()
    yield made
    nursery.cancel_scope.cancel()


def is_free(board: Board) -> bool:
    fd = os.open(board.name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


@pytest.mark.parametrize("stall", [0.02, 0.06, 0.15, 0.5, 0.95])
@pytest.mark.parametrize("is_full", [False, True])
async def test_stalling_board_is_disabled_before_line_is_closed(
    leaving: Leaving, stall: float, is_full: bool
) -> None:
    if is_full:
        leaving.board.stall(leaving.fd)
    await leaving.end()
    await trio.sleep(stall)
    assert leaving.closings == 0, "the brake has the line until the board has taken the frame"
    assert not is_free(leaving.board)
    while not leaving.client.ended.is_set():
        leaving.board.take()
        await trio.sleep(0.005)
    assert leaving.last_heard().endswith(DISABLE_FRAME)
    assert [leaving.closings] == [1]
    assert is_free(leaving.board)


@pytest.mark.parametrize("is_full", [False, True])
async def test_stuck_board_times_out_and_its_port_is_free(leaving: Leaving, is_full: bool) -> None:
    if is_full:
        leaving.board.stall(leaving.fd)
    await leaving.end()
    with structlog.testing.capture_logs() as logs:
        assert await leaving.ended() == pytest.approx(TIME_LIMIT, abs=0.1)
    assert [entry["event"] for entry in logs] == [
        "device accepted no last DEV_DISABLE; closing its full line"
    ]
    assert leaving.board.unsent == 0, "the close would have waited for these bytes"
    assert is_free(leaving.board)


@pytest.mark.parametrize("act", [0.01, DRAIN_TIMEOUT + 0.01, 0.5])
async def test_frame_of_brake_is_replaced_only_by_another(leaving: Leaving, act: float) -> None:
    leaving.board.stall(leaving.fd)
    line = Line("board", os.dup(leaving.fd))
    await leaving.end()
    await trio.sleep(act)
    line.disable(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    line.advance(0)
    assert line.pending
    for _ in range(20):
        await trio.sleep(0.02)
        assert leaving.board.unsent
    assert leaving.last_heard().endswith(DISABLE_FRAME)
    await leaving.ended()
    line.advance(0)
    assert line.outcome == "disabled"
    line.close()
    assert DISABLE_FRAME in leaving.last_heard()


async def test_unplugged_board_is_not_waited_for(
    leaving: Leaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> int:
        raise OSError(5, "gone")

    monkeypatch.setattr("rt.brake.output_queue.unsent", fail)
    await leaving.end()
    assert await leaving.ended() < DRAIN_TIMEOUT
    assert leaving.closings == 1


@dataclass
class Connection:
    """A board over TCP that does not read, and whose reports are not read either.

    Attributes:
        board: The board's end, with a timeout.
        link: This side, whose kernel buffer holds bytes that the board has no room for.
        fd: Its descriptor.
        sent: How many filler bytes were sent.
    """

    board: socket.socket
    link: SocketLink
    fd: int
    sent: int = 0

    def hears(self) -> bytes:
        """Return everything until the end of the connection, without the filler."""
        heard = b""
        while chunk := self.board.recv(65536):
            heard += chunk
        assert heard.startswith(GARBAGE * self.sent)
        return heard[self.sent :]


@asynccontextmanager
async def stalled_connection(
    *, shared: bool = True, fill: bool = False
) -> AsyncIterator[Connection]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        host, port = listener.socket.getsockname()
        with socket.socket() as board:
            board.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            board.connect((host, port))
            board.settimeout(30)
            stream = await listener.accept()
            link = SocketLink(stream, "board", shared=shared)
            fd = link.fileno()
            assert fd is not None
            board.sendall(b"reports that this side never reads")
            await trio.lowlevel.wait_readable(fd)
            made = Connection(board, link, fd)
            with suppress(BlockingIOError):
                while fill or not output_queue.unsent(fd):
                    made.sent += os.write(fd, GARBAGE * 512)
            yield made


@pytest.mark.parametrize("shared", [False, True])
async def test_closed_connection_delivers_sent_data_despite_unread_input(shared: bool) -> None:
    async with stalled_connection(shared=shared) as connection:
        connection.sent += os.write(connection.fd, GARBAGE)
        await connection.link.send(DISABLE_FRAME)
        await connection.link.aclose()
        assert connection.hears() == DISABLE_FRAME


async def test_connection_stays_open_until_board_takes_its_frame(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    async with stalled_connection() as connection:
        closing = trio.Event()
        client = SmartDeviceClient(connection.link, WriteGuard(), on_closing=closing.set)
        nursery.start_soon(client.run)
        nursery.start_soon(client.drop)
        await trio.sleep(TIME_LIMIT / 2)
        assert not closing.is_set(), (
            "the board's next report would end the connection, with the frame"
        )
        assert output_queue.unsent(connection.fd)
        assert (await trio.to_thread.run_sync(connection.hears)).endswith(DISABLE_FRAME)
        await closing.wait()


@pytest.mark.parametrize("fill", [False, True])
async def test_tcp_board_that_never_reads_times_out(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, fill: bool
) -> None:
    async with stalled_connection(fill=fill) as connection:
        client = SmartDeviceClient(connection.link, WriteGuard())
        nursery.start_soon(client.run)
        began = trio.current_time()
        await client.drop()
        assert trio.current_time() - began == pytest.approx(TIME_LIMIT, abs=0.1)
