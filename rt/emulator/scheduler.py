"""One clock for many emulated devices: a task and a timer for all of them, so that hundreds cost little."""

import heapq
import itertools
from collections.abc import Callable
from typing import Final

import trio

GRAIN: Final = 0.001
"""How late the pacer may be in s, so that what is due at nearly the same time takes one turn of the event loop."""


class Entry:
    """One device's place in the pacer's list.

    Args:
        take: Called with the time whenever the device is due. It must not block, and has to plan
            the next turn itself.
    """

    __slots__ = ("due", "take")

    def __init__(self, take: Callable[[float], object]) -> None:
        self.take = take
        self.due = float("inf")


class Scheduler:
    """Lets devices act when they are due. `run` has to run, once."""

    def __init__(self) -> None:
        self._planned: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()
        self._wake = float("inf")
        self._news = trio.Event()

    def plan(self, turn: Entry, due: float) -> None:
        """Give a device its turn at ``due`` and at no other time; never, if that is infinite."""
        if due == turn.due:
            return
        turn.due = due
        if due == float("inf"):
            return
        heapq.heappush(self._planned, (due, next(self._numbers), turn))
        if due < self._wake:
            self._news.set()

    async def run(self) -> None:
        """Give every device its turns, until cancelled."""
        while True:
            now = trio.current_time()
            while self._planned and self._planned[0][0] <= now:
                due, _, turn = heapq.heappop(self._planned)
                if turn.due == due:  # else it was planned anew
                    turn.due = float("inf")
                    turn.take(now)
            self._news = trio.Event()
            self._wake = max(self._planned[0][0], now + GRAIN) if self._planned else float("inf")
            with trio.move_on_at(self._wake):
                await self._news.wait()
            self._wake = float("inf")
