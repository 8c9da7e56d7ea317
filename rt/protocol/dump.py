"""The traceback dump that Python's `faulthandler` writes after a timeout, read line by line. Pure.

Source of the format: Python/traceback.c, ``_Py_DumpTracebackThreads``: a line with the timeout,
then each thread with its frames, innermost first. The dump has no end mark.
"""

import re
from typing import Final, NamedTuple

_START: Final = re.compile(r"Timeout \(\d+:\d\d:\d\d(\.\d+)?\)!")
_THREAD: Final = re.compile(r"(Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):")
_FRAME: Final = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<func>.*)')
_OTHER: Final = ("", "  ...", "  <no Python frame>", "  <tstate is freed>")
_MOST_LINES: Final = 5000


class Frame(NamedTuple):
    """A frame of a thread: its file, its line (0 if unknown) and its function."""

    file: str
    line: int
    func: str


class DumpReader:
    """Takes the lines of a dump out of a stream of lines.

    Attributes:
        active: Whether a dump has begun.
    """

    def __init__(self) -> None:
        self.active = False
        self._threads: list[list[Frame]] = []
        self._lines = 0

    def feed(self, line: str) -> bool:
        """Take a line; False if it is not part of a dump."""
        if _START.fullmatch(line):
            self.finish()
            self.active = True
            return True
        if not self.active or self._lines >= _MOST_LINES:
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
        """The frames of each thread, innermost first, of the dump that has ended; the main thread comes last."""
        threads, self._threads = self._threads, []
        self.active, self._lines = False, 0
        return threads
