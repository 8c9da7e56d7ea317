"""Calls at an interval, on absolute deadlines of the monotonic clock.

The rule of this module: a call that is late is counted and never made up for. The deadlines stay
where they were, so that nothing drifts, and those that have passed are left out.
"""

import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import trio

from rt import log


class Schedule:
    """Deadlines that are one interval apart; it has no clock of its own.

    Args:
        start: The first deadline, in s.
        interval: In s, more than 0.

    Attributes:
        deadline: The latest one that was given.
        overruns: How many deadlines have been left out.

    Raises:
        ValueError: The interval is none.

    Examples:
        >>> schedule = Schedule(10.0, interval=1.0)
        >>> schedule.next(10.2), schedule.next(13.5), schedule.overruns
        (11.0, 14.0, 2)
    """

    def __init__(self, start: float, interval: float) -> None:
        if not (math.isfinite(interval) and interval > 0):
            raise ValueError(
                f"{interval!r} is no interval; it has to be a number of seconds above 0"
            )
        self.interval = interval
        self.overruns = 0
        self._start = start
        self._count = 0

    @property
    def deadline(self) -> float:
        """The latest deadline that was given."""
        # Multiplied rather than added up: a sum of many small errors would drift.
        return self._start + self._count * self.interval

    def next(self, now: float) -> float:
        """The next deadline that has not passed; the others between count as overruns."""
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
    """Call an async function at an interval, the first time at once, until a cancel or an exception of it.

    A call that takes longer than the interval is let run to its end; the calls that would have
    begun meanwhile are left out and counted. The log says so when the count doubles.

    Args:
        func: What to call.
        *args: Its arguments.
        interval: Seconds from the begin of one call to the begin of the next.
        **kwargs: Its arguments by name.

    Raises:
        ValueError: The interval is none.
        TypeError: The function is not async; known when it has been called once.
    """
    name = getattr(func, "__qualname__", repr(func))
    schedule = Schedule(trio.current_time(), interval)
    say_at = 1
    while True:
        call = func(*args, **kwargs)
        if not inspect.isawaitable(call):
            raise TypeError(f"{name} cannot be called at an interval: it is not async")
        await call
        deadline = schedule.next(trio.current_time())
        if schedule.overruns >= say_at:
            say_at = 2 * schedule.overruns
            log.get_logger().warning(
                "a periodic call does not keep its interval",
                function=name,
                interval=interval,
                overruns=schedule.overruns,
            )
        await trio.sleep_until(deadline)
