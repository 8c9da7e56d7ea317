"""One clock for many emulated devices: a task and a timer for all of them, so that hundreds cost little."""

import heapq
import itertools
from collections.abc import Callable
from typing import Final

import trio

RESOLUTION: Final = 0.001
"""How late the pacer may be in s, so that what is due at nearly the same time takes one turn of the event loop."""


class Entry:
    """One device's place in the pacer's list.

    Args:
        take: Called with the time whenever the device is due. It must not block, and has to plan
            the next turn itself.
    """

    __slots__ = ("callback", "due")

    def __init__(self, callback: Callable[[float], object]) -> None:
        self.callback = callback
        self.due = float("inf")


class Scheduler:
    """Lets devices act when they are due. `run` has to run, once."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()
        self._wake = float("inf")
        self._changed = trio.Event()

    def schedule(self, entry: Entry, due: float) -> None:
        """Give a device its turn at ``due`` and at no other time; never, if that is infinite."""
        if due == entry.due:
            return
        entry.due = due
        if due == float("inf"):
            return
        heapq.heappush(self._queue, (due, next(self._numbers), entry))
        if due < self._wake:
            self._changed.set()

    async def run(self) -> None:
        """Give every device its turns, until cancelled."""
        while True:
            now = trio.current_time()
            while self._queue and self._queue[0][0] <= now:
                due, _, entry = heapq.heappop(self._queue)
                if entry.due == due:  # else it was planned anew
                    entry.due = float("inf")
                    entry.callback(now)
            self._changed = trio.Event()
            self._wake = max(self._queue[0][0], now + RESOLUTION) if self._queue else float("inf")
            with trio.move_on_at(self._wake):
                await self._changed.wait()
            self._wake = float("inf")
