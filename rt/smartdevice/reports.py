"""Whether a device reports what it was subscribed to. Pure.

Invariant: a value is shown as present only while the device reports it; a report that is only late
causes a question and no verdict. All times grow with the granted interval where that is longer than
0.4 s.
"""

import enum
from collections.abc import Sequence
from typing import Final

ASK_AFTER: Final = 1.0
"""Silence of a subscribed parameter after which the device is asked for its subscription, in s."""
RENEW_AFTER: Final = 1.75
"""Silence after which the subscription is renewed, in s; with the time between two looks (0.25 s) at most 2 s."""
LOST_AFTER: Final = 2.75
"""Silence after which the device counts as silent, in s: the renewal has had 1 s."""
_USUAL: Final = 0.4
"""The longest interval that needs no longer times, in s."""


class Verdict(enum.IntEnum):
    """What it means that subscribed parameters have not been reported for some time, in order of severity."""

    REPORTING = 0
    ASK = 1
    RENEW = 2
    LOST = 3


class Reports:
    """The reports of one device that are expected, and since when they have not come.

    Attributes:
        expected: The bitmap of the parameters that the device has to report; 0 for none.
        silent: The bitmap of those that did not come in time, as of the last look.
        silence: The longest time that one of them had not come by the last look, in s.
    """

    def __init__(self) -> None:
        self.expected = 0
        self.silent = 0
        self.silence = 0.0
        self._scale = 1.0
        self._counts: dict[int, int] = {}
        self._since: dict[int, float] = {}

    def expect(self, params: int, interval: float, counts: Sequence[int], now: float) -> None:
        """Expect reports of these parameters from now on; one that was expected before keeps its silence.

        Args:
            params: Their bitmap; 0 to expect none.
            interval: The granted time between two reports, in s.
            counts: How often each parameter has come so far, by id.
            now: The present time, in s.
        """
        self.expected = params
        self.silent, self.silence = 0, 0.0
        self._scale = max(1.0, interval / _USUAL)
        ids = [id_ for id_ in range(params.bit_length()) if params >> id_ & 1]
        self._since = {id_: self._since.get(id_, now) for id_ in ids}
        self._counts = {id_: self._counts.get(id_, counts[id_]) for id_ in ids}

    def ignore_gap(self, seconds: float) -> None:
        """Do not count so many seconds: this process did not read what came meanwhile."""
        for id_ in self._since:
            self._since[id_] += seconds

    def check(self, counts: Sequence[int], now: float) -> Verdict:
        """Judge by how often each parameter has come so far, see `expect`."""
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
    """The verdict on so many seconds without a report, where the interval is a usual one."""
    if silence >= LOST_AFTER:
        return Verdict.LOST
    if silence >= RENEW_AFTER:
        return Verdict.RENEW
    return Verdict.ASK if silence >= ASK_AFTER else Verdict.REPORTING
