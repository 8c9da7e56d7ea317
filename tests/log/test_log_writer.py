"""Lines that go to a file descriptor, and never make anybody wait."""

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


def test_nobody_waits_for_a_reader_and_what_was_dropped_is_said(pipe: tuple[int, int]) -> None:
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


def test_a_finalizer_that_logs_while_its_own_thread_writes_does_not_wait_for_itself(
    pipe: tuple[int, int],
) -> None:
    garbage = [b"a motor is gone"]

    def note(_count: int) -> bytes:
        while garbage:  # is looked for wherever something is made
            writer.write(garbage.pop())
        return b"some are missing"

    writer = LineWriter(pipe[1], note)

    def talk() -> None:
        for _ in range(100):
            writer.write(b"x" * 1000)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert writer.dropped


def test_what_was_dropped_is_said_as_everything_else_is(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with open(writing, "w", closefd=False) as stream:
        log.configure(stream=stream, fmt="pretty", app="root")
        for _ in range(2000):
            log.get_logger().info("x" * 1000)
        os.read(reading, 1 << 20)
        log.get_logger().info("again")
    note, again = os.read(reading, 1 << 20).decode().splitlines()[-2:]
    assert "[warning  ] log lines were dropped dropped=" in note
    assert again.endswith("again")


def test_a_line_of_which_a_pipe_took_a_part_spoils_no_other(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LineWriter(writing)
    # Longer than what a pipe takes at once: only a part of it fits.
    writer.write(b"y" * 100_000)
    os.read(reading, 1 << 20)
    writer.write(b"whole")
    assert os.read(reading, 1 << 20).decode().splitlines()[-1] == "whole"


def test_a_reader_that_has_gone_ends_nobody(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    writer = LineWriter(writing)
    writer.write(b"into the void")
    assert writer.dropped == 1


def test_what_others_write_to_the_same_file_comes_after_our_lines(tmp_path: Path) -> None:
    with (tmp_path / "all.txt").open("wb", buffering=0) as file:
        file.write(b"before\n")
        LineWriter(file.fileno()).write(b"a line")
        file.write(b"after\n")
    assert (tmp_path / "all.txt").read_text() == "before\na line\nafter\n"


def test_a_socket_that_nobody_reads_makes_nobody_wait() -> None:
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


def test_an_oversized_line_is_cut_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        LineWriter(stream.fileno()).write(b"z" * 100_000)
    assert path.read_text() == "z" * MAX_LINE + " [line cut here]\n"


def test_a_process_that_is_forked_while_a_thread_writes_can_write_too(
    pipe: tuple[int, int],
) -> None:
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
