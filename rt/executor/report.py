"""Logs the errors of team code: the first in full, then how often it was repeated.

An error in main repeats at every call. Logging each one would hide everything else.
"""

import threading
import time
from pathlib import Path
from typing import Any

from rt import log
from rt.errors import RuntimeBaseException
from rt.executor.stack_frames import trace, where
from rt.executor.time_limit import TimeLimitError
from rt.log.throttle import Throttle
from rt.protocol import exception

INTERVAL = 5.0
"""Minimum time between two events about the same error, in s."""
BURST = 20
"""How many different errors are logged at once; after that one in each `INTERVAL`."""
WAIT = "to wait, let it start an action that uses `await Actions.sleep(...)`"
"""What team code does instead of waiting."""
MAX_ERRORS = 256
"""How many different errors are remembered; one more clears the memory."""


class _Occurrence:
    """An error that was logged, and how often it has been repeated since."""

    def __init__(self, level: str, context: dict[str, Any]) -> None:
        self.level = level
        self.context = context
        self.logged_at = time.monotonic()
        self.count = 0


class Reporter:
    """Logs errors of team code. Thread-safe.

    Attributes:
        path: The file of the team code.
    """

    def __init__(self) -> None:
        self.path = Path()
        self._occurrences: dict[tuple[object, ...], _Occurrence] = {}
        self._lock = threading.Lock()
        self._throttle = Throttle(burst=BURST, interval=INTERVAL)
        self._log = log.get_logger()

    def report(self, error: BaseException, name: str) -> None:
        """Log an error of a function with its place, or count it; a group error by error."""
        for each in _errors(error):
            self._report(each, name)

    def _report(self, error: BaseException, name: str) -> None:
        place, line = where(error, self.path)
        context: dict[str, Any] = {"func": name, "file": place, "line": line}
        if isinstance(error, TimeLimitError):
            key: tuple[object, ...] = (TimeLimitError, name, bool(error.waited))
            level = "warning"
            message = (
                f"{name} took too long and was interrupted: it must return within"
                f" {error.limit:g} s; {WAIT}"
            )
            extra: dict[str, Any] = {"limit": error.limit}
            if error.waited:
                message = (
                    f"the computer is busy: {name} waited for a processor, took too long and was"
                    " interrupted; end other programs on this computer"
                )
                extra["waited"] = round(error.waited, 3)
        else:
            message = _message(error)
            key = (type(error), message, place, line)
            level, extra = "error", {"traceback": trace(error, self.path)}
        with self._lock:
            occurrence = self._occurrences.get(key)
            if occurrence is not None:
                occurrence.count += 1
                if time.monotonic() - occurrence.logged_at >= INTERVAL:
                    self._log_repeats(occurrence)
                return
            if len(self._occurrences) >= MAX_ERRORS:
                self._occurrences.clear()
            self._occurrences[key] = _Occurrence(level, {**context, "error": message})
            # Errors with a different text each time share one limit.
            self._throttle.log(getattr(self._log, level), message, "error", **context, **extra)

    def flush(self) -> None:
        """Log what was counted, and forget all errors."""
        with self._lock:
            self._throttle.flush()
            for occurrence in self._occurrences.values():
                if occurrence.count:
                    self._log_repeats(occurrence)
            self._occurrences.clear()

    def _log_repeats(self, occurrence: _Occurrence) -> None:
        getattr(self._log, occurrence.level)(
            "error repeated", count=occurrence.count, **occurrence.context
        )
        occurrence.logged_at, occurrence.count = time.monotonic(), 0


def _errors(error: BaseException) -> list[BaseException]:
    """Return an error, or the errors of a group and of its nested groups."""
    found: list[BaseException] = []
    pending = [error]
    while pending and len(found) < BURST:
        each = pending.pop()
        if isinstance(each, BaseExceptionGroup):
            pending.extend(reversed(each.exceptions))
        else:
            found.append(each)
    return found


def _message(error: BaseException) -> str:
    if isinstance(error, RuntimeBaseException):
        return error.message
    return f"{type(error).__name__}: {exception.message(error)}"
