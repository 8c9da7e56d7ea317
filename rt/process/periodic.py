"""Periodic calls on absolute deadlines of the monotonic clock.

Invariant: missed calls are counted and never made up for. The deadlines keep their place, so the
calls do not drift.
"""

import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import trio

from rt import log


class Schedule:
    """Deadlines that are one interval apart. It has no clock of its own.

    Args:
        start: The first deadline (s).
        interval: More than 0 (s).

    Attributes:
        overruns: How many deadlines were missed.

    Raises:
        ValueError: The interval is not a finite number above 0.

    Examples:
        >>> schedule = Schedule(10.0, interval=1.0)
        >>> schedule.next(10.2), schedule.next(13.5), schedule.overruns
        (11.0, 14.0, 2)
    """

    def __init__(self, start: float, interval: float) -> None:
        if not (math.isfinite(interval) and interval > 0):
            raise ValueError(f"invalid interval {interval!r}: expected a number of seconds above 0")
        self.interval = interval
        self.overruns = 0
        self._start = start
        self._count = 0

    @property
    def deadline(self) -> float:
        """The latest deadline that was returned."""
        # A product, because a sum would accumulate rounding errors.
        return self._start + self._count * self.interval

    def next(self, now: float) -> float:
        """Return the next deadline that has not passed, and count the skipped ones as overruns."""
        before = self._count
        self._count += 1
        if self.deadline < now:
            self._count = max(self._count, math.ceil((now - self._start) / self.interval))
            while self.deadline < now:  # rounding
                self._count += 1
        self.overruns += self._count - before - 1
        return self.deadline


async def spin(
    func: Callable[..., Awaitable[Any]], /, *args: Any, interval: float = 1.0, **kwargs: Any
) -> NoReturn:
    """Call an async function at an interval, at once for the first time.

    A call that takes longer than the interval runs to its end. The calls that would have begun in
    the meantime are skipped and counted; a warning is logged each time the count doubles. Runs
    until it is cancelled or a call raises.

    Args:
        func: What to call.
        *args: Its positional arguments.
        interval: Time from the start of one call to the start of the next (s).
        **kwargs: Its keyword arguments.

    Raises:
        ValueError: The interval is not a finite number above 0.
        TypeError: The function is not async; detected at the first call.
    """
    name = getattr(func, "__qualname__", repr(func))
    schedule = Schedule(trio.current_time(), interval)
    warn_at = 1
    while True:
        call = func(*args, **kwargs)
        if not inspect.isawaitable(call):
            raise TypeError(f"spin() needs an async function, and {name} is not async")
        await call
        deadline = schedule.next(trio.current_time())
        if schedule.overruns >= warn_at:
            warn_at = 2 * schedule.overruns
            log.get_logger().warning(
                "periodic call missed its deadline",
                function=name,
                interval=interval,
                overruns=schedule.overruns,
            )
        await trio.sleep_until(deadline)
