"""Finds buffers that team code has overwritten, by what rt itself never writes into them.

Invariant: what a killed or stopped process leaves behind is no damage unless nobody could take the lock any more.
"""

import time
from collections.abc import Callable
from typing import Final

from rt.buffer.base import BaseBuffer

STUCK_AFTER: Final = 1.0
"""Time (s) for which a lock that is held for microseconds may be in one state."""
LOOKS: Final = 3
"""Looks that have to see that state: a process that was stopped itself has not looked."""


class Soundness:
    """Looks at one buffer again and again.

    Args:
        buffer: The buffer, as another process writes it.
        clock: Gives the time in s.
    """

    def __init__(self, buffer: BaseBuffer, clock: Callable[[], float] = time.monotonic) -> None:
        self._buffer = buffer
        self._clock = clock
        self._state: tuple[int, ...] = ()
        self._since = 0.0
        self._looks = 0

    def damage(self) -> str:
        """What is wrong with the buffer; empty if it can be what rt has written. Returns at once, and takes no lock."""
        if fault := self._buffer.damage():
            return fault
        state = self._buffer.lock_state()
        if not any(state):
            self._looks = 0
            return ""
        now = self._clock()
        if state != self._state or not self._looks:
            self._state, self._since, self._looks = state, now, 0
        self._looks += 1
        if self._looks >= LOOKS and now - self._since >= STUCK_AFTER:
            return "its lock is not released"
        return ""


__all__ = ["Soundness"]
