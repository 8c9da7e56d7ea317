"""The limit on cut-offs: how many a mode survives.

A cut-off is a moment at which the devices were disabled because their commander was late, silent or
failed. Repeated cut-offs make the robot move in pulses, which a person cannot stop in time, so they
end the mode. This module has no clock; the caller passes the time.
"""

from collections import deque

WINDOW = 10.0
"""Time in s within which cut-offs are counted together."""


class CutoffCounter:
    """Counts the cut-offs of one mode.

    Args:
        limit: How many cut-offs within `WINDOW` end the mode.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times: deque[float] = deque()

    def add(self, now: float) -> bool:
        """Count a cut-off.

        Args:
            now: The time in s, of a monotonic clock.

        Returns:
            Whether it ends the mode.
        """
        self._times.append(now)
        while self._times[0] <= now - WINDOW:
            self._times.popleft()
        return len(self._times) >= self._limit
