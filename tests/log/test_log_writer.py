"""Writing of lines to a file descriptor without blocking."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rt import log
from rt.log import LineWriter
from rt.protocol.logevent import MAX_LINE


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue


def test_write_to_a_full_pipe_is_dropped_and_reported_later(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LineWriter(writing)
    for _ in range(200):
        writer.write(b"x" * 1000)
    assert writer.dropped > 0
    dropped = writer.dropped
    os.read(reading, 1 << 20)
    writer.write(b"again")
    lines = os.read(reading, 1 << 20).decode().splitlines()
    assert json.loads(lines[-2])["dropped"] == dropped
    assert lines[-1] == "again"
    assert writer.dropped == 0


def test_finalizer_that_logs_during_a_write_does_not_deadlock(pipe: tuple[int, int]) -> None:
    garbage = [b"motor disconnected"]

    def note(_count: int) -> bytes:
        while garbage:  # as a finalizer that runs at an allocation
            writer.write(garbage.pop())
        return b"lines dropped"

    writer = LineWriter(pipe[1], note)

    def talk() -> None:
        for _ in range(100):
            writer.write(b"x" * 1000)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert writer.dropped


def test_note_about_dropped_lines_has_the_format_of_the_log(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with open(writing, "w", closefd=False) as stream:
        log.configure(stream=stream, fmt="pretty", app="root")
        for _ in range(2000):
            log.get_logger().info("x" * 1000)
        os.read(reading, 1 << 20)
        log.get_logger().info("again")
    note, again = os.read(reading, 1 << 20).decode().splitlines()[-2:]
    assert "[warning  ] log lines dropped dropped=" in note
    assert again.endswith("again")


def test_partly_written_line_does_not_affect_the_next(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LineWriter(writing)
    # Longer than the capacity of a pipe, so only a part fits.
    writer.write(b"y" * 100_000)
    os.read(reading, 1 << 20)
    writer.write(b"whole")
    assert os.read(reading, 1 << 20).decode().splitlines()[-1] == "whole"


def test_closed_reader_only_drops_lines(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    writer = LineWriter(writing)
    writer.write(b"a line")
    assert writer.dropped == 1


def test_other_writers_of_a_file_append_after_our_lines(tmp_path: Path) -> None:
    with (tmp_path / "all.txt").open("wb", buffering=0) as file:
        file.write(b"before\n")
        LineWriter(file.fileno()).write(b"a line")
        file.write(b"after\n")
    assert (tmp_path / "all.txt").read_text() == "before\na line\nafter\n"


def test_write_to_a_full_socket_does_not_block() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = LineWriter(ours.fileno())
        try:
            for _ in range(2000):
                writer.write(b"x" * 1000)
            assert writer.dropped > 0
            while theirs.recv(1 << 20, socket.MSG_DONTWAIT).endswith(b"x" * 1000):
                continue
        except BlockingIOError:
            pass
        writer.write(b"whole")
        assert theirs.recv(1 << 20).splitlines()[-1] == b"whole"
        assert ours.getblocking()
        assert writer._socket is not None
        writer._socket.close()


def test_oversized_line_is_cut_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        LineWriter(stream.fileno()).write(b"z" * 100_000)
    assert path.read_text() == "z" * MAX_LINE + " [line cut here]\n"


def test_process_forked_during_a_write_can_write(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    code = f"""
import os, sys, threading
from rt import log
from rt.log import LineWriter
writer = LineWriter({writing})
with writer._lock:
    pid = os.fork()
    if not pid:
        writer.write(b"from the copy")
        os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, pass_fds=[writing], timeout=40)
    assert os.read(reading, 100) == b"from the copy\n"
