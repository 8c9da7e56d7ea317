"""A serial port whose board takes bytes only when the test lets it: the driver says truly how many bytes it has not sent.

The driver of a pseudo-terminal says always that it has sent everything. Here it counts what was
written to the port and not yet read at the board's end.
"""

import contextlib
import os
import select
import tty
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from rt.brake import output

PATIENCE = 30.0
SETTLED = 0.1
"""For how long (s) a line takes nothing when it is full."""


@dataclass
class Board:
    """The board's end.

    Attributes:
        name: The path of the port.
        unsent: How many bytes the driver has for the board.
        heard: What the board has taken so far.
    """

    name: str
    fd: int
    unsent: int = 0
    heard: bytes = b""

    def stall(self, port: int) -> None:
        """Fill the line: the board takes nothing until `take`."""
        while select.select([], [port], [], SETTLED)[
            1
        ]:  # the kernel moves bytes from one of its buffers to the next
            for size in (512, 1):
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(port, b"\xaa" * size)

    def take(self) -> bytes:
        """Take what the driver has; all that was taken so far."""
        self.heard += self.drop()
        return self.heard

    def drop(self) -> bytes:
        """Take what the driver has, as if it had dropped it."""
        dropped = b""
        while self.unsent:
            assert select.select([self.fd], [], [], PATIENCE)[0], f"{self.unsent} bytes never come"
            data = os.read(self.fd, 65536)
            self.unsent -= len(data)
            dropped += data
        return dropped


@contextlib.contextmanager
def stalling_board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board, and the seam of `rt.brake.output` for its port."""
    board, port = os.openpty()
    tty.setraw(port)
    made = Board(os.ttyname(port), board)
    number = os.fstat(port).st_rdev
    os.close(port)
    unsent, drop, write = output.unsent, output.drop, os.write

    def is_port(fd: int) -> bool:
        return os.fstat(fd).st_rdev == number

    def count(fd: int) -> int:
        unsent(fd)
        return made.unsent if is_port(fd) else 0

    def drop_all(fd: int) -> None:
        if is_port(fd):
            made.drop()  # a pseudo-terminal drops not always all
        else:
            drop(fd)

    def write_counted(fd: int, data: bytes) -> int:
        size = write(fd, data)
        if is_port(fd):
            made.unsent += size
        return size

    monkeypatch.setattr(output, "unsent", count)
    monkeypatch.setattr(output, "drop", drop_all)
    monkeypatch.setattr(os, "write", write_counted)
    try:
        yield made
    finally:
        os.close(board)
