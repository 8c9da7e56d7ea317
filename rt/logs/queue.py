"""A bounded queue from the threads that log to the task that sends or writes their events.

Invariant: `put` takes microseconds and never blocks. Items that do not fit are dropped and counted.
"""

import contextlib
import threading
from collections import deque
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

MAX_BYTES = 4 << 20
"""Default capacity of a queue in bytes (4 MiB)."""


class LogQueue(Generic[T]):
    """A queue of items for one task of the trio run in which it is created.

    Args:
        max_bytes: Capacity in bytes.

    Attributes:
        dropped: Items that did not fit since this was last set to 0.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        # Reentrant, because a finalizer that logs can run at any allocation.
        self._lock = threading.RLock()
        self._filled = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()

    def put(self, item: T, size: int) -> bool:
        """Add an item of a size in bytes, from any thread; return whether it fits."""
        with self._lock:
            if self._bytes + size > self._max_bytes:
                self.dropped += 1
                return False
            first = not self._items
            self._items.append((item, size))
            self._bytes += size
        if first:
            if threading.get_ident() == self._thread:
                self._filled.set()
            else:
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._wake, idempotent=True)
        return True

    def take_nowait(self) -> list[T]:
        """Remove and return all items in their order."""
        with self._lock:
            items, self._items = self._items, deque()
            self._bytes = 0
        return [item for item, _size in items]

    async def take(self) -> list[T]:
        """Wait for items, then remove and return all.

        A checkpoint; no item is lost if cancelled.
        """
        while not self._items:
            self._filled = trio.Event()
            # A `put` between the two lines above has set the former event.
            if not self._items:
                await self._filled.wait()
        await trio.lowlevel.checkpoint()
        return self.take_nowait()

    def _wake(self) -> None:
        self._filled.set()
