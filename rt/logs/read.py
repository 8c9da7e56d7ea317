"""Reading the files of a log, also while a robot goes on writing them and starts new ones.

The rules of this module: all files are opened before the first is read, so that a file which gets
another name meanwhile is read once, and whole; and a line takes a bounded room, whatever the file
is. All of it may wait for the disk: it belongs into a worker thread.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rt.logs.file import numbered
from rt.protocol.logevent import CUT_MARKER

MAX_LINE = 1 << 20
"""The longest line in bytes; of a longer one the rest is left out and the cut is marked."""


def read(path: Path, *, older: bool = True, unfinished: bool = False) -> Iterator[bytes]:
    """The lines of a log, the oldest first, without their ends; a file that cannot be read is left out.

    Args:
        path: The newest file.
        older: Whether the files before it are read too.
        unfinished: Whether a last line that has no end counts; of a file that grows meanwhile it is
            not whole yet.
    """
    with contextlib.ExitStack() as stack:
        for file in reversed(_opened(path, stack, older=older)):
            with contextlib.suppress(OSError):
                yield from _lines(file, unfinished=unfinished)


def _opened(path: Path, stack: contextlib.ExitStack, *, older: bool) -> list[BinaryIO]:
    """The files that there are, the newest first: one that gets an older name meanwhile is met again, none is missed."""
    files: list[BinaryIO] = []
    met: set[tuple[int, int]] = set()
    number = 0
    while not number or older:
        try:
            file = stack.enter_context(numbered(path, number).open("rb"))
            info = os.fstat(file.fileno())
        except OSError:
            if number:  # the newest may be away for a moment, while the next one is begun
                break
        else:
            if (info.st_dev, info.st_ino) not in met:
                met.add((info.st_dev, info.st_ino))
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
