"""The brake's duplicate of a serial port whose driver holds bytes that the board does not take."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator

import pytest
from support.stalled import Board, stalling_board

from rt.brake.line import MS, TIME_LIMIT, Line
from rt.brake.protocol import DISABLE

NOW = 1000 * MS


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    with stalling_board(monkeypatch) as made:
        yield made


def open_port(board: Board) -> int:
    """A descriptor of the port with the lock, as the device process has it."""
    fd = os.open(board.name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def is_locked(board: Board) -> bool:
    fd = os.open(board.name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@pytest.fixture
def port(board: Board) -> Iterator[int]:
    fd = open_port(board)
    yield fd
    try:
        os.close(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise


@pytest.fixture
def line(port: int) -> Line:
    return Line("board", os.dup(port))


@pytest.mark.parametrize("is_full", [False, True])
def test_frame_counts_only_when_the_driver_has_sent_it(
    board: Board, port: int, line: Line, is_full: bool
) -> None:
    if is_full:
        board.stall(port)
    line.disable(NOW)
    assert line.work(NOW)
    assert (line.pending, line.outcome) == (True, "")
    assert line.due(NOW) is not None
    assert board.take().endswith(DISABLE)
    assert not line.work(NOW + TIME_LIMIT - 1)
    assert (line.pending, line.outcome) == (False, "disabled")
    line.close()


def test_frame_that_is_not_sent_within_the_limit_is_refused_and_dropped(
    board: Board, port: int, line: Line
) -> None:
    board.stall(port)
    os.close(port)  # with its process
    line.disable(NOW, finish=True)
    assert line.work(NOW)
    assert line.work(NOW + TIME_LIMIT - 1)
    assert is_locked(board), "another process would open a port to which this one writes"
    assert not line.work(NOW + TIME_LIMIT)
    assert line.outcome == "refused"
    line.close()
    assert board.unsent == 0, "the close would have waited for these bytes"
    assert not is_locked(board)


def test_port_is_free_as_soon_as_a_dead_process_has_its_frame_sent(
    board: Board, port: int, line: Line
) -> None:
    in_flight = os.dup(port)  # in the queue of a channel
    os.close(port)
    line.disable(NOW, finish=True)
    line.work(NOW)
    board.take()
    assert not line.work(NOW)
    line.close()
    assert not is_locked(board)
    os.close(in_flight)


def test_taken_back_line_drops_nothing_of_who_opened_the_port_anew(
    board: Board, port: int, line: Line
) -> None:
    fcntl.flock(port, fcntl.LOCK_UN)
    os.close(port)
    anew = open_port(board)
    os.write(anew, b"of the new owner")
    line.close()
    assert board.take() == b"of the new owner"
    assert is_locked(board)
    os.close(anew)


def test_taken_back_line_does_not_wait_for_its_own_bytes(
    board: Board, port: int, line: Line
) -> None:
    line.disable(NOW)
    line.work(NOW)
    fcntl.flock(port, fcntl.LOCK_UN)
    os.close(port)
    assert board.unsent
    line.close()
    assert board.unsent == 0


def test_brake_that_leaves_takes_nothing_from_a_process_that_lives(
    board: Board, port: int, line: Line
) -> None:
    board.stall(port)
    line.disable(NOW, finish=True, shared=True)
    line.work(NOW)
    assert not line.work(NOW + TIME_LIMIT)
    assert line.outcome == "refused"
    line.close()
    assert is_locked(board)
    assert board.take().endswith(DISABLE)


def test_brake_that_leaves_ends_no_connection_of_a_process_that_lives() -> None:
    ours, board = socket.socketpair()
    with ours, board:
        ours.setblocking(False)
        line = Line("board", os.dup(ours.fileno()))
        line.disable(NOW, finish=True, shared=True)
        assert not line.work(NOW)
        line.close()
        ours.sendall(b"more")
        assert board.recv(100) == DISABLE + b"more"


def test_line_is_dead_when_its_board_is_gone(
    board: Board, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.disable(NOW)
    assert line.work(NOW)

    def fail(_: int) -> int:
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr("rt.brake.output.unsent", fail)
    assert not line.work(NOW)
    assert line.outcome == "dead"
    line.close()
