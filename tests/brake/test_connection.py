"""Discarding what an exited brake or device process did not read."""

import fcntl
import os
import resource
import socket
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from rt.brake.connection import Connection, Endpoint, adopt, receive
from rt.brake.protocol import Kind, Message, encode


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    yield connection
    connection.close()


def send(end: Endpoint, message: Message, fd: int | None = None) -> None:
    with socket.socket(fileno=os.dup(end.channel)) as channel:
        channel.setblocking(False)
        socket.send_fds(channel, [encode(message)], [] if fd is None else [fd])


def fill(end: Endpoint, fd: int) -> None:
    for _ in range(100_000):
        send(end, Message(Kind.ASK, 1), fd)


def is_free(port: str) -> bool:
    fd = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("unsent", [b"", b"a frame that the board does not read"])
def test_line_unread_by_a_dead_brake_is_unlocked(
    connection: Connection, unsent: bytes, *, flush: bool
) -> None:
    board, port = os.openpty()
    try:
        name = os.ttyname(port)
        tty.setraw(port)
        fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(port, unsent)
        for number in range(3):
            send(connection.device, Message(Kind.LINE, number, name), port)
        os.close(port)  # the device process exits
        assert not is_free(name)
        assert connection.discard(connection.brake, flush=flush) == 3
        assert is_free(name)
        assert connection.discard(connection.brake, flush=flush) == 0
    finally:
        os.close(board)


def test_channel_is_drained_without_free_descriptors(connection: Connection) -> None:
    for number in range(3):
        send(connection.device, Message(Kind.ASK, number))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert connection.discard(connection.brake, flush=False) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with (
        socket.socket(fileno=os.dup(connection.brake.channel)) as channel,
        pytest.raises(BlockingIOError),
    ):
        receive(channel)


def test_line_of_a_living_process_keeps_lock_and_output(connection: Connection) -> None:
    board, port = os.openpty()
    try:
        name = os.ttyname(port)
        tty.setraw(port)
        fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
        send(connection.device, Message(Kind.LINE, 1, name), port)
        os.write(port, b"frame")
        connection.discard(connection.brake, flush=False)
        assert not is_free(name)
        assert os.read(board, 10) == b"frame"
    finally:
        os.close(port)
        os.close(board)


def test_connection_unread_by_a_dead_brake_is_closed(connection: Connection) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        send(connection.device, Message(Kind.LINE, 1, "tcp"), ours.fileno())
        ours.close()
        connection.discard(connection.brake, flush=True)
        assert theirs.recv(1) == b""


def test_full_queue_of_a_dead_process_accepts_messages_again(connection: Connection) -> None:
    """Otherwise ASK is dropped, and the next device process does not learn of the brake."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        with pytest.raises(OSError, match=r"unavailable|references"):
            fill(connection.brake, pidfd)
        assert connection.discard(connection.device, flush=True) > 0
        send(connection.brake, Message(Kind.ASK, 1), pidfd)
    finally:
        os.close(pidfd)


def test_invalid_messages_are_discarded(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.device.channel)) as channel:
        for data in (b"\xff", b"x" * 1000):
            channel.send(data)
        socket.send_fds(channel, [b"?"], [0] * 20)
    connection.discard(connection.brake, flush=True)
    send(connection.device, Message(Kind.ALL))
    with socket.socket(fileno=os.dup(connection.brake.channel)) as channel:
        assert channel.recv(100, socket.MSG_DONTWAIT) == encode(Message(Kind.ALL))


def test_received_descriptors_are_not_inheritable(connection: Connection) -> None:
    pidfd = os.pidfd_open(os.getpid())
    send(connection.brake, Message(Kind.ASK, 1), pidfd)
    os.close(pidfd)
    with socket.socket(fileno=os.dup(connection.device.channel)) as channel:
        data, (fd,) = receive(channel)
        inheritable = os.get_inheritable(fd)
        os.close(fd)
        assert (data, inheritable) == (encode(Message(Kind.ASK, 1)), False)
        with pytest.raises(BlockingIOError):
            receive(channel)


def test_closed_channel_ends_the_discard(connection: Connection) -> None:
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), connection.device.channel, inheritable=False)
    assert connection.discard(connection.brake, flush=False) == 0


def test_credentials_are_not_taken_for_descriptors(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.brake.channel)) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        send(connection.device, Message(Kind.ALL))
        assert receive(channel) == (encode(Message(Kind.ALL)), [])


def test_inherited_descriptors_are_not_passed_on(connection: Connection) -> None:
    for fd in connection.brake:
        os.set_inheritable(fd, True)
    assert adopt(connection.brake) == connection.brake
    assert not any(map(os.get_inheritable, connection.brake))
