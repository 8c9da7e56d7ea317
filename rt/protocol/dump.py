"""A parser for the traceback dump that Python's `faulthandler` writes after a timeout.

Source of the format: Python/traceback.c, ``_Py_DumpTracebackThreads``: a line with the timeout,
then each thread with its frames, innermost first. The dump has no end marker.
"""

import re
from typing import Final, NamedTuple

_START: Final = re.compile(r"Timeout \(\d+:\d\d:\d\d(\.\d+)?\)!")
_THREAD: Final = re.compile(r"(Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):")
_FRAME: Final = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<func>.*)')
_OTHER: Final = ("", "  ...", "  <no Python frame>", "  <tstate is freed>")
_MAX_LINES: Final = 5000


class Frame(NamedTuple):
    """A stack frame: file, line (0 if unknown) and function."""

    file: str
    line: int
    func: str


class DumpReader:
    """Extracts the lines of a dump from a stream of lines.

    Attributes:
        active: Whether a dump has begun.
    """

    def __init__(self) -> None:
        self.active = False
        self._threads: list[list[Frame]] = []
        self._lines = 0

    def feed(self, line: str) -> bool:
        """Process a line, and return whether it is part of a dump."""
        if _START.fullmatch(line):
            self.finish()
            self.active = True
            return True
        if not self.active or self._lines >= _MAX_LINES:
            return False
        if _THREAD.fullmatch(line):
            self._threads.append([])
        elif frame := _FRAME.fullmatch(line):
            number = frame["line"]
            if self._threads:
                self._threads[-1].append(
                    Frame(frame["file"], int(number) if number.isdecimal() else 0, frame["func"])
                )
        elif line not in _OTHER:
            return False
        self._lines += 1
        return True

    def finish(self) -> list[list[Frame]]:
        """End the dump, and return the frames of each thread, innermost first, main thread last."""
        threads, self._threads = self._threads, []
        self.active, self._lines = False, 0
        return threads
