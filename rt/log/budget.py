"""A budget of lines and bytes: how much of a flood is let through."""

from typing import NamedTuple

from rt.log.throttle import Bucket


class Rate(NamedTuple):
    """A limit.

    Args:
        burst: How much may come at once.
        per_second: How much may come in each second after that.
    """

    burst: float
    per_second: float


class Budget:
    """Lets lines through within a limit of lines and one of bytes, and counts the others.

    Args:
        lines: Limit of lines.
        size: Limit of bytes.
        now: The present time in s.

    Attributes:
        suppressed: Lines that were not let through since this was last set to 0.
    """

    def __init__(self, lines: Rate, size: Rate, now: float) -> None:
        self.suppressed = 0
        self._lines = Bucket(lines.burst, 1 / lines.per_second, now)
        self._bytes = Bucket(size.burst, 1 / size.per_second, now)

    def take(self, size: int, now: float) -> bool:
        """Whether a line of so many bytes is let through."""
        if self._lines.refill(now) >= 1 and self._bytes.refill(now) >= size:
            self._lines.tokens -= 1
            self._bytes.tokens -= size
            return True
        self.suppressed += 1
        return False
