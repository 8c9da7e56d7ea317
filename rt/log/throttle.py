"""A bound on how often events of one class are logged.

Invariant: the first events are logged at once, a flood is logged at a steady low rate, and what was
suppressed is counted and its newest event is logged in the end.
"""

import math
import time
from collections.abc import Callable, Hashable
from typing import Any, Final

BURST: Final = 5
INTERVAL: Final = 5.0
TOTAL_BURST: Final = 512
TOTAL_INTERVAL: Final = 1.0
MAX_KEYS: Final = 2048
"""The most token buckets that one throttle keeps."""

Write = Callable[..., object]
"""A method of a logger: takes the event and its context."""


class Bucket:
    """A token bucket: one event costs a token, and tokens come back one by one.

    Args:
        burst: How many tokens the full bucket holds, at least 1.
        interval: Time in which one token comes back, in s.
        now: The present time, in s.
    """

    __slots__ = ("_burst", "_interval", "_time", "tokens")

    def __init__(self, burst: float, interval: float, now: float) -> None:
        self.tokens = float(burst)
        self._burst = burst
        self._interval = interval
        self._time = now

    def refill(self, now: float) -> float:
        """Add the tokens that have come back by now, and return how many there are."""
        self.tokens = min(self._burst, self.tokens + max(0.0, now - self._time) / self._interval)
        self._time = max(now, self._time)
        return self.tokens

    def due(self, now: float) -> float:
        """When the bucket holds at least one token."""
        return now + max(0.0, 1 - self.refill(now)) * self._interval

    @property
    def full(self) -> bool:
        """Whether all tokens were back at the last refill."""
        return self.tokens >= self._burst


class _Suppressed:
    """The events of one class that were not logged."""

    __slots__ = ("buckets", "context", "count", "write")

    def __init__(self) -> None:
        self.count = 0
        self.write: Write = lambda *_args, **_context: None
        self.context: dict[str, Any] = {}
        self.buckets: list[Bucket] = []


class Throttle:
    """Logs events within a rate, each class of events by itself.

    The class of an event is its sentence with the value of each context field in `per`: a device
    that floods the log does not suppress the events of another one. All events with one sentence
    share a larger limit, so that a device that changes its name or its port each time is bounded
    too.

    Not for use by several threads.

    Args:
        per: Names of context fields, such as ``port`` and ``uid``.
        burst: How many events of one class are logged at once.
        interval: Time between two events of one class after that, in s.
        total_burst: The same for all events with one sentence.
        total_interval: The same for all events with one sentence, in s.
        clock: Gives the time in s.
    """

    def __init__(
        self,
        *per: str,
        burst: int = BURST,
        interval: float = INTERVAL,
        total_burst: int = TOTAL_BURST,
        total_interval: float = TOTAL_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per = per
        self._limits = (burst, interval)
        self._total_limits = (total_burst, total_interval)
        self._clock = clock
        self._buckets: dict[Hashable, Bucket] = {}
        self._suppressed: dict[Hashable, _Suppressed] = {}

    def log(self, write: Write, event: str, kind: str | None = None, /, **context: Any) -> bool:
        """Log an event, or count it as suppressed.

        Args:
            write: A method of a logger, such as ``logger.warning``.
            event: The sentence.
            kind: What stands for the sentence in the class of the event, for sentences that vary;
                the sentence if None.
            context: Context fields; ``suppressed`` is added with the number of events that were
                left out before this one.

        Returns:
            Whether the event was logged.
        """
        now = self._clock()
        kind = event if kind is None else kind
        keys: list[Hashable] = [
            (kind, name, str(context[name])) for name in self._per if name in context
        ]
        keys.append(kind)
        buckets = [self._bucket(key, now, len(keys) > 1 and key is kind) for key in keys]
        empty = [key for key, bucket in zip(keys, buckets, strict=True) if bucket.refill(now) < 1]
        if empty:
            suppressed = self._suppressed.setdefault(empty[0], _Suppressed())
            suppressed.count += 1
            suppressed.write, suppressed.context, suppressed.buckets = (
                write,
                {"event": event, **context},
                buckets,
            )
            return False
        for bucket in buckets:
            bucket.tokens -= 1
        count = sum(self._suppressed.pop(key).count for key in keys if key in self._suppressed)
        write(event, **context, **({"suppressed": count} if count else {}))
        return True

    @property
    def has_suppressed(self) -> bool:
        """Whether an event is suppressed that `flush` will log."""
        return bool(self._suppressed)

    @property
    def due(self) -> float:
        """When `flush` has an event to log; infinite while none is suppressed."""
        if not self._suppressed:
            return math.inf
        now = self._clock()
        return min(
            max(bucket.due(now) for bucket in each.buckets) for each in self._suppressed.values()
        )

    def flush(self, *, always: bool = False) -> None:
        """Log the newest suppressed event of each class whose next event is due; call this at an interval or at `due`.

        Args:
            always: Whether to log those too whose next event is not due, as at the end of a
                process.
        """
        if not self._suppressed:
            return
        now = self._clock()
        for key, suppressed in list(self._suppressed.items()):
            if always or min(bucket.refill(now) for bucket in suppressed.buckets) >= 1:
                for bucket in suppressed.buckets:
                    bucket.tokens -= 1
                del self._suppressed[key]
                others = suppressed.count - 1
                suppressed.write(**suppressed.context, **({"suppressed": others} if others else {}))

    def _bucket(self, key: Hashable, now: float, total: bool) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_KEYS:
                self._forget(now)
            bucket = self._buckets[key] = Bucket(
                *(self._total_limits if total else self._limits), now
            )
        return bucket

    def _forget(self, now: float) -> None:
        """Forget the buckets that say nothing any more, or all if each of them says something."""
        for key, bucket in list(self._buckets.items()):
            bucket.refill(now)
            if bucket.full and key not in self._suppressed:
                del self._buckets[key]
        if len(self._buckets) >= MAX_KEYS:
            self._buckets.clear()
            self._suppressed.clear()
