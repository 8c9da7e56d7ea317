"""The output of team code: lines that `print` or others write to `sys.stdout` become log events.

Each event carries the mode and the time since it began.

Invariant: one line is one event, also if several prints make it, and lines of different threads are
not mixed. A line is logged before `print` returns; a line without an end is logged when it gets
one, when it is flushed, and when the mode ends.
Invariant: a flood of prints or an endless line costs the log a bounded amount. Lines beyond `LINES`
and `BYTES` are counted instead, and a line longer than `MAX_LINE` is cut.
"""

import builtins
import io
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from rt import log
from rt.executor.api import RunState
from rt.log.budget import Budget, Rate
from rt.protocol.logevent import CUT_MARKER

LINES: Final = Rate(1000, 400)
BYTES: Final = Rate(1 << 20, 200e3)
"""How much is logged at once, and in each second after that; less than the root's budget."""

MAX_LINE: Final = 8192
"""How many characters of a line are logged."""

MAX_PARTIAL = 4096
"""How many characters a line without an end can have; then it is logged."""


class TeamOutput(io.TextIOBase):
    """The `sys.stdout` of team code. Thread-safe.

    Args:
        state: The state of the mode.
        clock: Returns the time in s, of the monotonic clock.
    """

    def __init__(self, state: RunState, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._state = state
        self._partial: dict[int, str] = {}
        self._clock = clock
        self._budget = Budget(LINES, BYTES, clock())
        self._log = log.get_logger()

    encoding = "utf-8"
    errors = "replace"

    def install(self) -> None:
        """Become `sys.stdout`, and make the real one write each line at once."""
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
        """Print as Python's ``print`` does, but keep the text of one call together.

        This is the ``print`` of team code.
        """
        target = sys.stdout if file is None else file
        if target is not self:  # another file, or a stdout that team code has installed
            builtins.print(*values, sep=sep, end=end, file=target, flush=flush)
            return
        text = io.StringIO()
        builtins.print(*values, sep=sep, end=end, file=text)
        self.write(text.getvalue())
        if flush:
            self.flush()

    def write(self, text: str, /) -> int:
        """Log the lines that a text completes, and keep the rest."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        thread = threading.get_ident()
        start = 0
        while (end := text.find("\n", start)) >= 0:
            line = self._partial.pop(thread, "") + text[start : min(end, start + MAX_LINE + 1)]
            start = end + 1
            if not self._emit(line):
                # The budget is spent for the rest of the text too.
                self._budget.suppressed += text.count("\n", start)
                start = text.rfind("\n") + 1
        if start < len(text):
            self._partial[thread] = (
                self._partial.get(thread, "") + text[start : start + MAX_LINE + 1]
            )
            if len(self._partial[thread]) > MAX_PARTIAL:
                self.flush()
        return len(text)

    def flush(self, thread: int | None = None) -> None:
        """Log the line that a thread has begun, by default this one."""
        if partial := self._partial.pop(thread or threading.get_ident(), ""):
            self._emit(partial)

    def finish(self) -> None:
        """Log the lines that all threads have begun."""
        for thread in list(self._partial):
            self.flush(thread)
        self._emit_suppressed(always=True)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the process's stdout.

        Programs that team code starts write to it; their lines become events without mode and time.
        """
        return 1

    def reconfigure(self, **_settings: Any) -> None:
        """Ignore the settings: lines are already written at once, as UTF-8."""

    @property
    def buffer(self) -> io.FileIO:
        """A new binary stream to the process's stdout, as programs that team code starts have.

        Closing it, as a discarded wrapper does, leaves the process its stdout.
        """
        return io.FileIO(self.fileno(), "w", closefd=False)

    def _emit(self, line: str) -> bool:
        """Log a line, or count it as suppressed; return whether it was logged."""
        is_logged = self._budget.take(len(line), self._clock())
        self._emit_suppressed()
        if not is_logged:
            return False
        if len(line) > MAX_LINE:
            line = line[:MAX_LINE] + CUT_MARKER
        clock = round(self._state.clock(), 3)
        self._log.info(line, source="print", mode=self._state.mode.name.lower(), clock=clock)
        return True

    def _emit_suppressed(self, *, always: bool = False) -> None:
        if count := self._budget.report(self._clock(), always=always):
            self._log.warning(
                "prints suppressed: team code prints too much",
                suppressed=count,
                mode=self._state.mode.name.lower(),
            )
