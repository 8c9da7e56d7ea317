"""Reading of log files, also while a robot writes and rotates them.

Invariant: all files are opened before the first is read, so that a file renamed meanwhile is read
once and completely. A line takes bounded memory, whatever the file contains.

The synchronous functions may block on the disk; call them in a worker thread.
"""

import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import trio

from rt.logs.file import numbered
from rt.logs.view import clock_moved, event_of
from rt.protocol.logevent import CLOCK_MOVED, CUT_MARKER

MAX_LINE = 1 << 20
"""Maximum length of a line in bytes; a longer one is cut and marked."""
BATCH = 1000
"""Lines that are read at once."""


def read(path: Path, *, older: bool = True, unfinished: bool = False) -> Iterator[bytes]:
    """Yield the lines of a log, oldest first, without line ends; skip files that cannot be read.

    Args:
        path: The newest file.
        older: Whether to read the rotated files too.
        unfinished: Whether to yield a last line without an end, which in a growing file may be
            incomplete.
    """
    with contextlib.ExitStack() as stack:
        for file in reversed(_open_all(path, stack, older=older)):
            with contextlib.suppress(OSError):
                yield from _lines(file, unfinished=unfinished)


async def read_batches(
    path: Path, *, older: bool = True, unfinished: bool = False
) -> AsyncIterator[list[bytes]]:
    """Yield the lines that `read` yields in batches, read in a worker thread."""
    lines = read(path, older=older, unfinished=unfinished)

    def next_batch() -> list[bytes]:
        return list(itertools.islice(lines, BATCH))

    while batch := await trio.to_thread.run_sync(next_batch, abandon_on_cancel=True):
        yield batch


async def clock_moved_since(path: Path, *, older: bool = True) -> float:
    """Return by how much the clock was set in total (s) after the first line of a log."""
    marker = f'"{CLOCK_MOVED}":'.encode()

    def find() -> float:
        if not path.is_file():  # a pipe can be read only once
            return 0.0
        return sum(
            clock_moved(event_of(line)) for line in read(path, older=older) if marker in line
        )

    return await trio.to_thread.run_sync(find, abandon_on_cancel=True)


def _open_all(path: Path, stack: contextlib.ExitStack, *, older: bool) -> list[BinaryIO]:
    """Open the existing files, newest first.

    A file that is renamed meanwhile is found again under its new number, so none is missed.
    """
    files: list[BinaryIO] = []
    seen: set[tuple[int, int]] = set()
    number = 0
    while not number or older:
        try:
            file = stack.enter_context(numbered(path, number).open("rb"))
            info = os.fstat(file.fileno())
        except OSError:
            if number:  # the newest file may be missing for a moment during a rotation
                break
        else:
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                files.append(file)
        number += 1
    return files


def _lines(file: BinaryIO, *, unfinished: bool) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE):
        if line.endswith(b"\n"):
            yield line[:-1]
        elif len(line) == MAX_LINE:
            yield line + CUT_MARKER.encode()
            while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
        elif unfinished:
            yield line
