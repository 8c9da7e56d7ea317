"""Detection of buffers that team code has overwritten, by contents that rt itself never writes.

Invariant: what a killed or stopped process leaves behind is not damage, unless the lock can no
    longer be taken.
"""

import time
from collections.abc import Callable
from typing import Final

from rt.buffer.base import BaseBuffer

STUCK_AFTER: Final = 1.0
"""Time (s) for which a lock that is normally held for microseconds may be in one state."""
CHECKS: Final = 40
"""Number of checks that must see that state, some milliseconds apart.

A lock is in the same state each time a thread holds it, and code that only uses a buffer holds the
lock half of the time.
"""


class StuckLock:
    """Detection of a lock that is not released, by repeated checks.

    Args:
        state: Returns the state of the lock; all zeros while it is free.
        clock: Returns the time in s.
    """

    def __init__(
        self, state: Callable[[], tuple[int, ...]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = state
        self._clock = clock
        self._state: tuple[int, ...] = ()
        self._since = 0.0
        self._checks = 0

    @property
    def suspected(self) -> bool:
        """Whether the lock was held at the last check, so that the next one should be soon."""
        return self._checks > 0

    def is_stuck(self) -> bool:
        """Return whether the lock is stuck. Does not block, and takes no lock."""
        state = self._read()
        if not any(state):
            self._checks = 0
            return False
        now = self._clock()
        if state != self._state or not self._checks:
            self._state, self._since, self._checks = state, now, 0
        self._checks += 1
        return self._checks >= CHECKS and now - self._since >= STUCK_AFTER


class Integrity(StuckLock):
    """Detection of damage of one buffer, by repeated checks.

    Args:
        buffer: The buffer, which another process writes.
        clock: Returns the time in s.
    """

    def __init__(self, buffer: BaseBuffer, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(buffer.lock_state, clock)
        self._buffer = buffer

    def damage(self) -> str:
        """Return what is wrong with the buffer; empty if rt can have written it.

        Does not block, and takes no lock.
        """
        if fault := self._buffer.damage():
            return fault
        return "its lock is not released" if self.is_stuck() else ""
