"""What the team's code says: `print`, and whatever else writes to `sys.stdout`, becomes events of the log.

Each carries the mode and the time since that began. The rules of this module: one line is one
event, also one that is made of several prints; a line that is begun in one thread is not mixed with
another's; and what is said is out when `print` returns, but for a line that has no end yet, which
is told when it has one, when it is flushed, and when the mode ends. A flood of prints, or an
endless line, costs the program the time to make it and the log nothing: beyond `LINES` and `BYTES`
lines are counted, and a line longer than `MAX_LINE` is cut.
"""

import builtins
import io
import sys
import threading
from time import monotonic
from typing import Any, Final

from rt import log
from rt.executor.api import RunState
from rt.log.budget import Budget, Rate
from rt.protocol.logevent import CUT

LINES: Final = Rate(1000, 400)
BYTES: Final = Rate(1 << 20, 200e3)
"""How much is told at once and in each second after that: less than what the root lets through."""

MAX_LINE: Final = 8192
"""The longest line that is told whole (characters)."""

COUNT_INTERVAL: Final = 1.0
"""Least time between two events that count what was suppressed (s)."""

MAX_PARTIAL = 4096
"""How long a line may become that has no end (characters); it is told then."""


class TeamOutput(io.TextIOBase):
    """Takes the place of `sys.stdout` where the team's code runs; any thread.

    Args:
        state: Knows the mode and the time.
    """

    def __init__(self, state: RunState) -> None:
        super().__init__()
        self._state = state
        self._partial: dict[int, str] = {}
        self._budget = Budget(LINES, BYTES, monotonic())
        self._counted_at = -COUNT_INTERVAL
        self._log = log.get_logger()

    encoding = "utf-8"
    errors = "replace"

    def install(self) -> None:
        """Be `sys.stdout` from now on, for modules that the team's code imports; the real one writes each line at once."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        sys.stdout = self

    def print(
        self,
        *values: object,
        sep: str | None = " ",
        end: str | None = "\n",
        file: Any = None,
        flush: bool = False,
    ) -> None:
        """The team's ``print``: as Python's, but what one call says is not torn by another thread."""
        target = sys.stdout if file is None else file
        if target is not self:  # also where the team's code has put a stdout of its own
            builtins.print(*values, sep=sep, end=end, file=target, flush=flush)
            return
        text = io.StringIO()
        builtins.print(*values, sep=sep, end=end, file=text)
        self.write(text.getvalue())
        if flush:
            self.flush()

    def write(self, text: str, /) -> int:
        """Tell the lines that a text completes, and keep the rest."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        thread = threading.get_ident()
        start = 0
        while (end := text.find("\n", start)) >= 0:
            line = self._partial.pop(thread, "") + text[start : min(end, start + MAX_LINE + 1)]
            start = end + 1
            if not self._emit(line):
                # What follows in the same text comes too fast, too.
                rest = text.count("\n", start)
                self._budget.suppressed += rest
                start = text.rfind("\n") + 1
        if start < len(text):
            self._partial[thread] = (
                self._partial.get(thread, "") + text[start : start + MAX_LINE + 1]
            )
            if len(self._partial[thread]) > MAX_PARTIAL:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Tell the line that this thread has begun."""
        if partial := self._partial.pop(threading.get_ident(), ""):
            self._emit(partial)

    def finish(self) -> None:
        """Tell the lines that any thread has begun."""
        for thread in list(self._partial):
            if partial := self._partial.pop(thread, ""):
                self._emit(partial)
        self._emit_suppressed()

    def writable(self) -> bool:
        """Whether it can be written to: always."""
        return True

    def fileno(self) -> int:
        """Where programs that the team's code starts write to; their lines become events without mode and time."""
        return 1

    def reconfigure(self, **_settings: Any) -> None:
        """Change nothing: each line is out at once, in UTF-8, which is what programs ask of a real stdout by this."""

    @property
    def buffer(self) -> io.FileIO:
        """Takes bytes, with the fate of those that programs write which the team's code starts; a new one each time.

        Whoever closes it, as a wrapper does that is thrown away, leaves the process its stdout.
        """
        return io.FileIO(self.fileno(), "w", closefd=False)

    def _emit(self, line: str) -> bool:
        """Tell a line, or count it; whether it was told."""
        now = monotonic()
        if not self._budget.take(len(line), now):
            if now - self._counted_at >= COUNT_INTERVAL:
                self._counted_at = now
                self._emit_suppressed()
            return False
        if self._budget.suppressed and now - self._counted_at >= COUNT_INTERVAL:
            self._counted_at = now
            self._emit_suppressed()
        if len(line) > MAX_LINE:
            line = line[:MAX_LINE] + CUT
        clock = round(self._state.clock(), 3)
        self._log.info(line, source="print", mode=self._state.mode.name.lower(), clock=clock)
        return True

    def _emit_suppressed(self) -> None:
        count, self._budget.suppressed = self._budget.suppressed, 0
        if count:
            mode = self._state.mode.name.lower()
            self._log.warning(
                "prints were suppressed: the team code prints too much", suppressed=count, mode=mode
            )
