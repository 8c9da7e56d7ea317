"""Waiting for changes of a buffer, from the event loop of any process of the robot.

Counters of received values determine what has changed, so no change between two calls is missed,
and several changes of one parameter are reported once. Each task has its own position.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import trio

from rt.buffer import layout, mutex
from rt.buffer.wakeup import Wakeups

BUSY_PAUSE = 0.001
"""Time (s) until a busy lock is tried again."""


class Watch:
    """The changes of a buffer that each task of this process has seen.

    Args:
        header: The buffer's header.
        received: Its counters of received values, by parameter id.
        lock: Its mutex.
    """

    def __init__(self, header: layout.Header, received: Any, lock: mutex.RobustMutex) -> None:
        self._header = header
        self._received = received
        self._lock = lock
        self._first = self._now()
        self._seen: weakref.WeakKeyDictionary[trio.lowlevel.Task, list[int]] = (
            weakref.WeakKeyDictionary()
        )

    async def changed(self, ids: Iterable[int], wakeups: Wakeups) -> list[int]:
        """Wait until one of these parameters was received or the peripheral came or went.

        A checkpoint. Each change is reported once to each task. Cancellation loses no change.

        Returns:
            The ids of the received parameters; empty if the peripheral came or went.
        """
        seen = self._seen.setdefault(trio.lowlevel.current_task(), list(self._first))
        ids = list(ids)
        await trio.lowlevel.checkpoint()
        while True:
            news = self._news(seen, ids)
            if news is None and not self._lock.try_acquire():
                await trio.sleep(BUSY_PAUSE)
                continue
            if news is None:
                # With the lock: either the writer sees our bit, or we see the change.
                try:
                    news = self._news(seen, ids)
                    if news is None:
                        self._header.watchers |= 1 << wakeups.slot
                finally:
                    self._lock.release()
            if news is not None:
                return news
            await wakeups.wait()

    def _now(self) -> list[int]:
        return [*self._received, self._header.presence]

    def _news(self, seen: list[int], ids: list[int]) -> list[int] | None:
        """Return the ``ids`` received since ``seen``, and update it; None if nothing is new."""
        now = self._now()
        news = [param for param in ids if now[param] != seen[param]]
        for param in news:
            seen[param] = now[param]
        if news:
            return news
        if now[-1] != seen[-1]:
            seen[-1] = now[-1]
            return []
        return None
