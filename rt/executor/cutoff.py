"""How often code may be cut off until its mode ends: pure, the caller brings the time.

A cut-off is a moment at which the devices were disabled because their commander was silent or late,
or failed. One may be bad luck. Code that is cut off again and again makes the robot pulse, which no
one can stop in time.
"""

from collections import deque

WINDOW = 10.0
"""The time (s) within which cut-offs are counted together."""


class CutoffCounter:
    """Counts the cut-offs of one mode.

    Args:
        limit: How many there may be within ``WINDOW``; the last of them ends the mode.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times: deque[float] = deque()

    def add(self, now: float) -> bool:
        """Count a cut-off (at a time in s of a clock that is never set); True if it ends the mode."""
        self._times.append(now)
        while self._times[0] <= now - WINDOW:
            self._times.popleft()
        return len(self._times) >= self._limit
