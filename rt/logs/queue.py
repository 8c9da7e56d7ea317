"""A bounded queue from the threads that log to the task that sends or writes what they say.

The rules of this module: to put something in takes microseconds and never waits; what does not fit
is dropped and counted.
"""

import contextlib
import threading
from collections import deque
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

MAX_BYTES = 4 << 20
"""How much may wait in a queue, in bytes (4 MiB)."""


class LogQueue(Generic[T]):
    """Things that wait to be taken by one task of the trio run in which the queue is made.

    Args:
        max_bytes: How much may wait.

    Attributes:
        dropped: Things that found no room since somebody last set this to 0.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._things: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._lock = (
            threading.RLock()
        )  # a finalizer that logs comes again wherever garbage is looked for
        self._news = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()

    def put(self, thing: T, size: int) -> bool:
        """Put a thing of so many bytes in, from any thread; whether there was room."""
        with self._lock:
            if self._bytes + size > self._max_bytes:
                self.dropped += 1
                return False
            first = not self._things
            self._things.append((thing, size))
            self._bytes += size
        if first:
            if threading.get_ident() == self._thread:
                self._news.set()
            else:
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._wake, idempotent=True)
        return True

    def take_nowait(self) -> list[T]:
        """Everything that is there, in the order in which it came."""
        with self._lock:
            things, self._things = self._things, deque()
            self._bytes = 0
        return [thing for thing, _size in things]

    async def take(self) -> list[T]:
        """Wait until there is something, and take it all. A checkpoint; a cancel leaves everything in the queue."""
        while not self._things:
            self._news = trio.Event()
            # Between the two lines above somebody may have put something in and seen the event of
            # before.
            if not self._things:
                await self._news.wait()
        await trio.lowlevel.checkpoint()
        return self.take_nowait()

    def _wake(self) -> None:
        self._news.set()
