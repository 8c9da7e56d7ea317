"""The brake's duplicate of a serial port whose driver has unsent bytes."""

import errno
import fcntl
import os
import socket
import termios
from collections.abc import Iterator

import pytest
from support.stalled import Board, stalling_board

from rt.brake import output_queue
from rt.brake.line import MS, TIME_LIMIT, Line
from rt.brake.output_queue import _DRAIN_READS
from rt.brake.protocol import DISABLE

NOW = 1000 * MS


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    with stalling_board(monkeypatch) as made:
        yield made


def open_port(board: Board) -> int:
    """Open and lock the port, like the device process."""
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
def test_device_is_disabled_when_the_driver_has_sent_the_frame(
    board: Board, port: int, line: Line, is_full: bool
) -> None:
    if is_full:
        board.stall(port)
    line.disable(NOW)
    assert line.advance(NOW)
    assert (line.pending, line.outcome) == (True, "")
    assert line.due(NOW) is not None
    assert board.take().endswith(DISABLE)
    assert not line.advance(NOW + TIME_LIMIT - 1)
    assert (line.pending, line.outcome) == (False, "disabled")
    line.close()


def test_unsent_frame_is_dropped_after_the_time_limit(board: Board, port: int, line: Line) -> None:
    board.stall(port)
    os.close(port)  # like the exit of its process
    line.disable(NOW, release=True)
    assert line.advance(NOW)
    assert line.advance(NOW + TIME_LIMIT - 1)
    assert is_locked(board), "another process could open a port that is being written"
    assert not line.advance(NOW + TIME_LIMIT)
    assert line.outcome == "refused"
    line.close()
    assert board.unsent == 0, "close would have waited for these bytes"
    assert not is_locked(board)


def test_port_of_a_dead_process_is_unlocked_after_the_frame(
    board: Board, port: int, line: Line
) -> None:
    in_flight = os.dup(port)  # in the queue of a channel
    os.close(port)
    line.disable(NOW, release=True)
    line.advance(NOW)
    board.take()
    assert not line.advance(NOW)
    line.close()
    assert not is_locked(board)
    os.close(in_flight)


def test_closed_line_keeps_output_of_a_new_owner(board: Board, port: int, line: Line) -> None:
    fcntl.flock(port, fcntl.LOCK_UN)
    os.close(port)
    new_owner = open_port(board)
    os.write(new_owner, b"of the new owner")
    line.close()
    assert board.take() == b"of the new owner"
    assert is_locked(board)
    os.close(new_owner)


def test_closed_line_does_not_wait_for_its_own_output(board: Board, port: int, line: Line) -> None:
    line.disable(NOW)
    line.advance(NOW)
    fcntl.flock(port, fcntl.LOCK_UN)
    os.close(port)
    assert board.unsent
    line.close()
    assert board.unsent == 0


def test_stopping_brake_keeps_output_of_a_living_process(
    board: Board, port: int, line: Line
) -> None:
    board.stall(port)
    line.disable(NOW, release=True, still_used=True)
    line.advance(NOW)
    assert not line.advance(NOW + TIME_LIMIT)
    assert line.outcome == "refused"
    line.close()
    assert is_locked(board)
    assert board.take().endswith(DISABLE)


def test_stopping_brake_keeps_connection_of_a_living_process() -> None:
    ours, board = socket.socketpair()
    with ours, board:
        ours.setblocking(False)
        line = Line("board", os.dup(ours.fileno()))
        line.disable(NOW, release=True, still_used=True)
        assert not line.advance(NOW)
        line.close()
        ours.sendall(b"more")
        assert board.recv(100) == DISABLE + b"more"


def test_line_is_dead_when_its_port_is_gone(
    board: Board, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.disable(NOW)
    assert line.advance(NOW)

    def fail(_: int) -> int:
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr("rt.brake.output_queue.unsent", fail)
    assert not line.advance(NOW)
    assert line.outcome == "dead"
    line.close()


def test_ended_connection_of_a_flooding_peer_is_read_boundedly() -> None:
    ours, board = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, board:
        for _ in range(_DRAIN_READS + 1):
            board.send(b"x")
        output_queue.end_connection(ours.fileno())
        assert ours.recv(1, socket.MSG_DONTWAIT) == b"x"
        with pytest.raises(BlockingIOError):
            ours.recv(1, socket.MSG_DONTWAIT)


def test_connection_that_the_peer_ended_is_ended_too() -> None:
    ours, board = socket.socketpair()
    with ours, board:
        board.sendall(b"unread")
        board.shutdown(socket.SHUT_WR)
        output_queue.end_connection(ours.fileno())
        assert ours.recv(1) == b""
        assert board.recv(1) == b""


def test_output_of_a_port_that_is_gone_cannot_be_dropped() -> None:
    board, port = os.openpty()
    os.close(board)
    try:
        with pytest.raises(termios.error):
            output_queue.drop(port)
    finally:
        os.close(port)
