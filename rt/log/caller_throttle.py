"""A rate limit for the events that each remote caller causes.

Invariant: one source causes at most `BURST` events of a class at once, and one per `INTERVAL` after
that. Suppressed events are counted, and the newest is logged.
"""

import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from rt.log.throttle import Throttle

BURST: Final = 16
INTERVAL: Final = 1.0
PREFIX: Final = 32
"""Characters of an event that determine its class; the caller may control the rest."""

Event = MutableMapping[str, Any]
Emit = Callable[[Event], object]


class CallerThrottle:
    """Logs the events of each source within a rate limit. Thread-safe.

    Args:
        clock: Returns the time (s).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._throttle = Throttle("source", burst=BURST, interval=INTERVAL, clock=clock)
        # A signal handler may log while this thread does.
        self._lock = threading.RLock()

    @property
    def has_suppressed(self) -> bool:
        """Whether `flush` has events to log, now or later."""
        return self._throttle.has_suppressed

    def log(self, emit: Emit, source: str, event: Event) -> None:
        """Log an event, or count it as suppressed; see `Throttle.log`."""

        def write(_text: str, *, fields: Event, suppressed: int = 0, **_: object) -> None:
            if suppressed:
                before = fields.get("suppressed")
                fields["suppressed"] = suppressed + (before if isinstance(before, int) else 0)
            emit(fields)

        text = str(event["event"])
        with self._lock:
            self._throttle.log(write, text, text[:PREFIX], source=source, fields=event)

    def flush(self, *, always: bool = False) -> None:
        """Log the suppressed events that are due, or all of them."""
        if self.has_suppressed:
            with self._lock:
                self._throttle.flush(always=always)
