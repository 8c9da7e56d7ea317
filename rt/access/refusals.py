"""Refused peers, counted by reason and logged at a bounded rate."""

import math

import trio

from rt import log

INTERVAL = 1.0
"""Least time between two log events with the same reason, in s."""


class Refusals:
    """Counts who was refused, and logs the first of each reason in every `INTERVAL`.

    Args:
        event: The text of the log event.

    Attributes:
        counts: Refusals so far, by reason.
    """

    def __init__(self, event: str) -> None:
        self.counts: dict[str, int] = {}
        self._event = event
        self._said_at: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}
        self._log = log.get_logger()

    def add(self, reason: str, **context: object) -> None:
        """Count a refusal.

        Args:
            reason: One of a few fixed texts.
            context: Who was refused, for the log.
        """
        self.counts[reason] = self.counts.get(reason, 0) + 1
        now = trio.current_time()
        if now - self._said_at.get(reason, -math.inf) < INTERVAL:
            self._suppressed[reason] = self._suppressed.get(reason, 0) + 1
            return
        self._said_at[reason] = now
        self._log.warning(
            self._event, reason=reason, **context, suppressed=self._suppressed.pop(reason, 0)
        )
