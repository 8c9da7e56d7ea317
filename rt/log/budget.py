"""A rate limit of lines and bytes."""

import math
from typing import Final, NamedTuple

from rt.log.throttle import Bucket


class Rate(NamedTuple):
    """A rate limit.

    Args:
        burst: Amount that passes at once.
        per_second: Amount that passes in each second after that.
    """

    burst: float
    per_second: float


NO_LIMIT: Final = Rate(math.inf, 1)
REPORT_INTERVAL: Final = 1.0
"""Default time (s) between two reports of lines that did not pass."""


class Budget:
    """Passes lines within a limit of lines and a limit of bytes, and counts the others.

    Args:
        lines: Limit of lines.
        size: Limit of bytes.
        now: Current time (s).
        report_interval: Minimum time between two reports (s).

    Attributes:
        suppressed: Lines that did not pass since the last report.
    """

    def __init__(
        self, lines: Rate, size: Rate, now: float, *, report_interval: float = REPORT_INTERVAL
    ) -> None:
        self.suppressed = 0
        self._report_interval = report_interval
        self._reported_at = -math.inf
        self._lines = Bucket(lines.burst, 1 / lines.per_second, now)
        self._bytes = Bucket(size.burst, 1 / size.per_second, now)

    def take(self, size: int, now: float) -> bool:
        """Return whether a line of this size (bytes) passes, and charge it."""
        if self._lines.refill(now) >= 1 and self._bytes.refill(now) >= size:
            self._lines.tokens -= 1
            self._bytes.tokens -= size
            return True
        self.suppressed += 1
        return False

    def report(self, now: float, *, always: bool = False) -> int:
        """Return how many lines did not pass since the last report; 0 if no report is due.

        Args:
            now: Current time (s).
            always: Whether a report is due in any case, as at the end of a process.
        """
        if not self.suppressed or not (always or now - self._reported_at >= self._report_interval):
            return 0
        self._reported_at = now
        count, self.suppressed = self.suppressed, 0
        return count
