"""A bound on the events that those who call from elsewhere cause, whatever they call.

Invariant: one source causes at most `BURST` events with one beginning at once, and one in each
`INTERVAL` after that. What was suppressed is counted, and its newest event is logged.
"""

import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from rt.log.throttle import Throttle

BURST: Final = 16
INTERVAL: Final = 1.0
BEGINNING: Final = 32
"""Characters of an event that say what it is; what follows may be of the caller's making."""

Event = MutableMapping[str, Any]
Spread = Callable[[Event, int], None]


class SourceThrottle:
    """Lets the events of each source through within a rate. For use by several threads.

    Args:
        clock: Gives the time in s.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._throttle = Throttle("source", burst=BURST, interval=INTERVAL, clock=clock)
        # A signal handler may log while this thread does.
        self._lock = threading.RLock()
        self.waits = False

    def log(self, spread: Spread, source: str, event: Event, severity: int) -> None:
        """Log an event, or count it as suppressed; see `Throttle.log`."""

        def write(event: str, *, fields: Event, suppressed: int = 0, **_: object) -> None:  # noqa: ARG001 - a keyword
            if suppressed:
                fields["suppressed"] = suppressed + (
                    before if isinstance(before := fields.get("suppressed"), int) else 0
                )
            spread(fields, severity)

        sentence = str(event["event"])
        with self._lock:
            if not self._throttle.log(
                write, sentence, sentence[:BEGINNING], source=source, fields=event
            ):
                self.waits = True

    def flush(self, *, always: bool = False) -> None:
        """Log what was suppressed and is due, or all of it."""
        with self._lock:
            self._throttle.flush(always=always)
            self.waits = self._throttle.has_suppressed


__all__ = ["SourceThrottle"]
