"""A scheduler for many emulated devices: one task and one timer, so that hundreds cost little."""

import heapq
import itertools
from collections.abc import Callable
from typing import Final

import trio

RESOLUTION: Final = 0.001
"""How late the scheduler may be in s, so that what is due at nearly the same time shares one turn
of the event loop.
"""


class Entry:
    """A device's entry in the schedule.

    Args:
        callback: Called with the time whenever the device is due. It must not block, and has to
            schedule the next call itself.
    """

    __slots__ = ("callback", "due")

    def __init__(self, callback: Callable[[float], object]) -> None:
        self.callback = callback
        self.due = float("inf")


class Scheduler:
    """Calls devices when they are due. `run` has to run, once."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()
        self._wake = float("inf")
        self._changed = trio.lowlevel.ParkingLot()

    def schedule(self, entry: Entry, due: float) -> None:
        """Schedule the next call of a device at ``due`` only; none if that is infinite."""
        if due == entry.due:
            return
        entry.due = due
        if due == float("inf"):
            return
        heapq.heappush(self._queue, (due, next(self._numbers), entry))
        if due < self._wake:
            self._changed.unpark_all()

    async def run(self) -> None:
        """Call every device when it is due, until cancelled."""
        while True:
            now = trio.current_time()
            while self._queue and self._queue[0][0] <= now:
                due, _, entry = heapq.heappop(self._queue)
                if entry.due == due:  # otherwise it was rescheduled
                    entry.due = float("inf")
                    entry.callback(now)
            self._wake = max(self._queue[0][0], now + RESOLUTION) if self._queue else float("inf")
            with trio.move_on_at(self._wake):
                await self._changed.park()
            self._wake = float("inf")
