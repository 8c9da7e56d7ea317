"""A budget of processor time for one class of work.

Invariant: in any `t` seconds the work takes at most `share * (t + 1)` seconds of processor time,
plus one unit of work. The limit is on time, not on units: expensive work runs less often.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

import trio


class TimeBudget:
    """A budget of processor time for one class of work of one thread.

    Args:
        share: Processor time for each second, in s.
        clock: Returns the current time, in s.
        timer: Returns the processor time of this thread, in s.
    """

    def __init__(
        self,
        share: float,
        *,
        clock: Callable[[], float] = trio.current_time,
        timer: Callable[[], float] = time.thread_time,
    ) -> None:
        self._share = share
        self._clock = clock
        self._timer = timer
        self._left = share
        self._time: float | None = None

    @property
    def wait(self) -> float:
        """Time until more work may start, in s; 0 if it may start now."""
        now = self._clock()
        if self._time is not None:
            self._left = min(self._share, self._left + max(0.0, now - self._time) * self._share)
        self._time = now
        return 0.0 if self._left > 0 else -self._left / self._share + 1e-3

    @property
    def is_spent(self) -> bool:
        """Whether no work may start now."""
        return self.wait > 0

    @contextlib.contextmanager
    def spend(self) -> Iterator[None]:
        """Charge the block to the budget; if it exceeds the budget, later work is delayed."""
        began = self._timer()
        try:
            yield
        finally:
            self._left -= self._timer() - began
