"""A bound on the processor time that one class of work takes.

Invariant: in any `t` seconds the work takes at most `share * (t + 1)` seconds of processor time,
and one unit of work more. The bound is in time and not in units, so work that becomes expensive
becomes rare.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

import trio


class TimeBudget:
    """The processor time that is left for a class of work of one thread.

    Args:
        share: Processor time (s) for each second.
        clock: Gives the present time (s).
        timer: Gives the processor time of this thread (s).
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
        """Time (s) until more work may begin; 0 if it may begin now."""
        now = self._clock()
        if self._time is not None:
            self._left = min(self._share, self._left + max(0.0, now - self._time) * self._share)
        self._time = now
        return 0.0 if self._left > 0 else -self._left / self._share + 1e-3

    @property
    def is_spent(self) -> bool:
        """Whether no work may begin now."""
        return self.wait > 0

    @contextlib.contextmanager
    def spend(self) -> Iterator[None]:
        """Charge the body to the budget; a body that takes longer than what is left makes a debt."""
        began = self._timer()
        try:
            yield
        finally:
            self._left -= self._timer() - began
