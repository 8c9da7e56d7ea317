"""Waiting for a buffer's changes, from the event loop of any process of the robot.

What has changed is told by the counters of values that came in, so that nothing is missed between
two calls, and what changed several times is told once. Each task has its own place in them.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import trio

from rt.buffer import layout, mutex
from rt.buffer.wakeup import Wakeups

BUSY_PAUSE = 0.001
"""Time (s) until a lock that somebody else has is tried again."""


class Watch:
    """Who in this process has seen what of a buffer.

    Args:
        header: The buffer's header.
        received: Its counters of values that came in, by parameter id.
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
        """Wait until one of these parameters has come in, or the peripheral has come or gone (none of them then); a checkpoint.

        What the calling task has been told before is not told again. A cancel loses nothing.
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
                # With the lock: who changes the buffer sees our bit, or we see the change.
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
        """The ids among ``ids`` that came in since ``seen``, which is brought up to date; None if nothing is new."""
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
