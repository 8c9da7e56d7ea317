"""Whether a device reports what it was subscribed to. Pure.

Invariant: a value counts as current only while the device reports it. A late report causes a ping,
    not the loss of the device. All times scale with a granted interval of more than 0.4 s.
"""

import enum
from collections.abc import Sequence
from typing import Final

ASK_AFTER: Final = 1.0
"""Silence of a subscribed parameter after which the device is pinged, in s."""
RENEW_AFTER: Final = 1.75
"""Silence after which the subscription is renewed, in s; with the time between two checks (0.25 s)
at most 2 s.
"""
LOST_AFTER: Final = 2.75
"""Silence after which the device is lost, in s: 1 s after the renewal."""
_USUAL: Final = 0.4
"""The longest interval at which the times above are not scaled, in s."""


class Verdict(enum.IntEnum):
    """What missing reports mean, in order of severity."""

    REPORTING = 0
    ASK = 1
    RENEW = 2
    LOST = 3


class Reports:
    """The reports that are expected of one device, and since when they are missing.

    Attributes:
        expected: The bitmap of the parameters that the device has to report; 0 for none.
        silent: The bitmap of those that were overdue at the last check.
        silence: The longest silence of one of them at the last check, in s.
    """

    def __init__(self) -> None:
        self.expected = 0
        self.silent = 0
        self.silence = 0.0
        self._scale = 1.0
        self._counts: dict[int, int] = {}
        self._since: dict[int, float] = {}

    def expect(self, params: int, interval: float, counts: Sequence[int], now: float) -> None:
        """Expect reports of these parameters from now on. Expected ones keep their silence.

        Args:
            params: Their bitmap; 0 to expect none.
            interval: The granted time between two reports, in s.
            counts: How often each parameter has been reported so far, by id.
            now: The current time, in s.
        """
        self.expected = params
        self.silent, self.silence = 0, 0.0
        self._scale = max(1.0, interval / _USUAL)
        ids = [id_ for id_ in range(params.bit_length()) if params >> id_ & 1]
        self._since = {id_: self._since.get(id_, now) for id_ in ids}
        self._counts = {id_: self._counts.get(id_, counts[id_]) for id_ in ids}

    def ignore_gap(self, seconds: float) -> None:
        """Do not count ``seconds`` as silence: this process did not read the line meanwhile."""
        for id_ in self._since:
            self._since[id_] += seconds

    def check(self, counts: Sequence[int], now: float) -> Verdict:
        """Return the verdict for how often each parameter was reported so far, see `expect`."""
        if not self.expected:
            return Verdict.REPORTING
        oldest = now
        self.silent = 0
        for id_, before in self._counts.items():
            if counts[id_] != before:
                self._counts[id_] = counts[id_]
                self._since[id_] = now
            elif now - self._since[id_] >= ASK_AFTER * self._scale:
                self.silent |= 1 << id_
                oldest = min(oldest, self._since[id_])
        self.silence = now - oldest
        return judge(self.silence / self._scale)


def judge(silence: float) -> Verdict:
    """Return the verdict on so many seconds without a report, for an interval of at most 0.4 s."""
    if silence >= LOST_AFTER:
        return Verdict.LOST
    if silence >= RENEW_AFTER:
        return Verdict.RENEW
    return Verdict.ASK if silence >= ASK_AFTER else Verdict.REPORTING
