"""What stands in the files of a log, as the commands read it: in a worker thread, many lines at a time."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from rt.logs import read
from rt.logs.view import clock_moved, event_of
from rt.protocol.logevent import CLOCK_MOVED

BATCH = 1000
"""Lines that are read at once."""


async def read_file(
    path: Path, *, older: bool = True, unfinished: bool = False
) -> AsyncIterator[list[bytes]]:
    """The lines of a log, many at a time; as `rt.logs.read.read`."""
    lines = read.read(path, older=older, unfinished=unfinished)

    def some() -> list[bytes]:
        return list(itertools.islice(lines, BATCH))

    while batch := await trio.to_thread.run_sync(some, abandon_on_cancel=True):
        yield batch


async def clock_moved_since(path: Path, *, older: bool = True) -> float:
    """By how much the clock was set, altogether, after the first line of a log was said (s)."""
    marker = f'"{CLOCK_MOVED}":'.encode()

    def find() -> float:
        if not path.is_file():  # what comes through a pipe can be read once only
            return 0.0
        return sum(
            clock_moved(event_of(line)) for line in read.read(path, older=older) if marker in line
        )

    return await trio.to_thread.run_sync(find, abandon_on_cancel=True)
