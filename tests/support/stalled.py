"""A serial port whose board reads only when the test lets it, with a true count of unsent bytes.

The driver of a pseudo-terminal always reports that it has sent everything. Here the unsent bytes
are those that were written to the port and not yet read at the board's end.
"""

import contextlib
import os
import select
import tty
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from rt.brake import output_queue

TIMEOUT = 30.0
FULL_AFTER = 0.1
"""How long a line accepts no data when it is full (s)."""


@dataclass
class Board:
    """The board's end.

    Attributes:
        name: The path of the port.
        unsent: How many bytes the driver holds for the board.
        received: What the board has read so far.
    """

    name: str
    fd: int
    unsent: int = 0
    received: bytes = b""

    def stall(self, port: int) -> None:
        """Fill the line; the board reads nothing until `take`."""
        # Repeated, because the kernel moves bytes from one of its buffers to the next.
        while select.select([], [port], [], FULL_AFTER)[1]:
            for size in (512, 1):
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(port, b"\xaa" * size)

    def take(self) -> bytes:
        """Read what the driver holds; return all that was read so far."""
        self.received += self.drop()
        return self.received

    def drop(self) -> bytes:
        """Read what the driver holds, as if the driver had dropped it."""
        dropped = b""
        while self.unsent:
            assert select.select([self.fd], [], [], TIMEOUT)[0], (
                f"{self.unsent} bytes do not arrive"
            )
            data = os.read(self.fd, 65536)
            self.unsent -= len(data)
            dropped += data
        return dropped


@contextlib.contextmanager
def stalling_board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """Create a board, and patch `rt.brake.output_queue` for its port."""
    board, port = os.openpty()
    tty.setraw(port)
    made = Board(os.ttyname(port), board)
    number = os.fstat(port).st_rdev
    os.close(port)
    unsent, drop, write = output_queue.unsent, output_queue.drop, os.write

    def is_port(fd: int) -> bool:
        return os.fstat(fd).st_rdev == number

    def count(fd: int) -> int:
        unsent(fd)
        return made.unsent if is_port(fd) else 0

    def drop_all(fd: int) -> None:
        if is_port(fd):
            made.drop()  # a pseudo-terminal does not always drop everything
        else:
            drop(fd)

    def write_counted(fd: int, data: bytes) -> int:
        size = write(fd, data)
        if is_port(fd):
            made.unsent += size
        return size

    monkeypatch.setattr(output_queue, "unsent", count)
    monkeypatch.setattr(output_queue, "drop", drop_all)
    monkeypatch.setattr(os, "write", write_counted)
    try:
        yield made
    finally:
        os.close(board)
