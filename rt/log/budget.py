"""A rate limit of lines and bytes."""

from typing import NamedTuple

from rt.log.throttle import Bucket


class Rate(NamedTuple):
    """A rate limit.

    Args:
        burst: Amount that passes at once.
        per_second: Amount that passes in each second after that.
    """

    burst: float
    per_second: float


class Budget:
    """Passes lines within a limit of lines and a limit of bytes, and counts the others.

    Args:
        lines: Limit of lines.
        size: Limit of bytes.
        now: Current time (s).

    Attributes:
        suppressed: Lines that did not pass since this was last set to 0.
    """

    def __init__(self, lines: Rate, size: Rate, now: float) -> None:
        self.suppressed = 0
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
