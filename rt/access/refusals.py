"""Counters of refused peers by reason, with rate-limited logging."""

import trio

from rt import log
from rt.log.throttle import Throttle

INTERVAL = 1.0
"""Minimum time between log events with the same reason, in s."""


class Refusals:
    """Counters of refusals; the first refusal of each reason in every `INTERVAL` is logged.

    Args:
        event: The log event.

    Attributes:
        counts: Refusals so far, by reason.
    """

    def __init__(self, event: str) -> None:
        self.counts: dict[str, int] = {}
        self._event = event
        self._throttle = Throttle("reason", burst=1, interval=INTERVAL, clock=trio.current_time)
        self._log = log.get_logger()

    def add(self, reason: str, **context: object) -> None:
        """Count a refusal, and log it unless one with this reason was logged recently.

        Args:
            reason: One of a few fixed texts.
            context: Context of the log event, which identifies the peer.
        """
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self._throttle.log(self._log.warning, self._event, reason=reason, **context)
