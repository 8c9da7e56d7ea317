"""Finds buffers that team code has overwritten, by what rt itself never writes into them.

Invariant: what a killed or stopped process leaves behind is no damage unless nobody could take the
    lock any more.
"""

import time
from collections.abc import Callable
from typing import Final

from rt.buffer.base import BaseBuffer

STUCK_AFTER: Final = 1.0
"""Time (s) for which a lock that is held for microseconds may be in one state."""
LOOKS: Final = 40
"""Looks that have to see that state, each some milliseconds after the one before.

The state of a lock is the same each time a thread holds it. Code that does nothing else than use a
buffer holds the lock half of the time.
"""


class StuckLock:
    """Looks at a lock again and again.

    Args:
        state: Reads it; all zeros while it is free.
        clock: Gives the time in s.
    """

    def __init__(
        self, state: Callable[[], tuple[int, ...]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = state
        self._clock = clock
        self._state: tuple[int, ...] = ()
        self._since = 0.0
        self._looks = 0

    @property
    def suspected(self) -> bool:
        """Whether the last look saw that the lock was held."""
        return self._looks > 0

    def look(self) -> bool:
        """Whether the lock is not released. Returns at once, and takes no lock."""
        state = self._read()
        if not any(state):
            self._looks = 0
            return False
        now = self._clock()
        if state != self._state or not self._looks:
            self._state, self._since, self._looks = state, now, 0
        self._looks += 1
        return self._looks >= LOOKS and now - self._since >= STUCK_AFTER


class Integrity:
    """Looks at one buffer again and again.

    Args:
        buffer: The buffer, as another process writes it.
        clock: Gives the time in s.
    """

    def __init__(self, buffer: BaseBuffer, clock: Callable[[], float] = time.monotonic) -> None:
        self._buffer = buffer
        self._lock = StuckLock(buffer.lock_state, clock)

    @property
    def suspected(self) -> bool:
        """Whether the lock was held at the last look: then the next one should be soon."""
        return self._lock.suspected

    def damage(self) -> str:
        """What is wrong with the buffer; empty if it can be what rt has written. Returns at once, and takes no lock."""
        if fault := self._buffer.damage():
            return fault
        return "its lock is not released" if self._lock.look() else ""


__all__ = ["Integrity", "StuckLock"]
