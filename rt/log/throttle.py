"""A rate limit for log events of one class.

Invariant: the first events are logged at once and a flood at a steady low rate. Suppressed events
are counted, and the newest is logged in the end.
"""

import functools
import math
import time
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple

BURST: Final = 5
INTERVAL: Final = 5.0
TOTAL_BURST: Final = 512
TOTAL_INTERVAL: Final = 1.0
MAX_KEYS: Final = 2048
"""Maximum number of token buckets of one throttle."""

Write = Callable[..., object]
"""A method of a logger, called with the event and its context."""


class Bucket:
    """A token bucket: each event takes a token, and tokens return at a steady rate.

    Args:
        burst: Tokens in the full bucket, at least 1.
        interval: Time in which one token returns, in s.
        now: Current time, in s.

    Attributes:
        tokens: Tokens at the last refill, less those taken since.
    """

    __slots__ = ("_burst", "_interval", "_time", "tokens")

    def __init__(self, burst: float, interval: float, now: float) -> None:
        self.tokens = float(burst)
        self._burst = burst
        self._interval = interval
        self._time = now

    def refill(self, now: float) -> float:
        """Add the tokens that have returned, and return the number of tokens."""
        self.tokens = min(self._burst, self.tokens + max(0.0, now - self._time) / self._interval)
        self._time = max(now, self._time)
        return self.tokens

    def due(self, now: float) -> float:
        """Return the time at which the bucket contains at least one token."""
        return now + max(0.0, 1 - self.refill(now)) * self._interval

    @property
    def full(self) -> bool:
        """Whether the bucket was full at the last refill."""
        return self.tokens >= self._burst


class _Suppressed(NamedTuple):
    """The suppressed events of one class: their number, the newest, and its buckets."""

    number: int
    write: Write
    buckets: list[Bucket]


class Throttle:
    """Logs events within a rate limit for each class of events.

    The class of an event is its text together with the value of each context field in `per`, so
    that a device that floods the log does not suppress the events of others. All events with one
    text share a larger limit, which also bounds a device that keeps changing its name or port.

    Not thread-safe.

    Args:
        per: Names of context fields, such as ``port`` and ``uid``.
        burst: Events of one class that are logged at once.
        interval: Time between two events of one class after that, in s.
        total_burst: Events with one text that are logged at once.
        total_interval: Time between two events with one text after that, in s.
        clock: Returns the time, in s.
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
            event: Text of the event.
            kind: Replaces the text in the class of the event, for texts that vary.
            context: Context fields; ``suppressed`` is added with the number of events suppressed
                before this one.

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
        newest = functools.partial(write, event, **context)
        if empty:
            before = self._suppressed.get(empty[0])
            self._suppressed[empty[0]] = _Suppressed(
                before.number + 1 if before else 1, newest, buckets
            )
            return False
        count = sum(self._suppressed.pop(key).number for key in keys if key in self._suppressed)
        _write(newest, count, buckets)
        return True

    @property
    def has_suppressed(self) -> bool:
        """Whether `flush` has an event to log, now or later."""
        return bool(self._suppressed)

    @property
    def due(self) -> float:
        """The time at which `flush` has an event to log; infinite if none is suppressed."""
        if not self._suppressed:
            return math.inf
        now = self._clock()
        return min(
            max(bucket.due(now) for bucket in each.buckets) for each in self._suppressed.values()
        )

    def flush(self, *, always: bool = False) -> None:
        """Log the newest suppressed event of each class whose next event is due.

        Call this at an interval or at `due`.

        Args:
            always: Log the events that are not due too, as at the end of a process.
        """
        if not self._suppressed:
            return
        now = self._clock()
        for key, suppressed in list(self._suppressed.items()):
            if always or min(bucket.refill(now) for bucket in suppressed.buckets) >= 1:
                del self._suppressed[key]
                _write(suppressed.write, suppressed.number - 1, suppressed.buckets)

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
        """Remove full buckets without suppressed events, or all if there are none."""
        for key, bucket in list(self._buckets.items()):
            bucket.refill(now)
            if bucket.full and key not in self._suppressed:
                del self._buckets[key]
        if len(self._buckets) >= MAX_KEYS:
            self._buckets.clear()
            self._suppressed.clear()


def _write(newest: Write, suppressed: int, buckets: list[Bucket]) -> None:
    for bucket in buckets:
        bucket.tokens -= 1
    newest(**({"suppressed": suppressed} if suppressed else {}))
