"""The health of a process in numbers: what it holds, and how late its event loop is."""

import gc
import os
import threading
from pathlib import Path

import msgspec
import trio

SAMPLE_INTERVAL = 1.0
"""Time between two looks at how late the event loop is (s)."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a process holds now.

    Attributes:
        tasks: Tasks of the event loop.
        threads: Threads that Python knows of.
        rss: Memory that is in the machine's, in bytes; shared memory counts too. None if there is
            no descriptor left to look by.
        fds: Open descriptors, or None likewise.
        gc_collections: Runs of the garbage collector since the start, of the youngest to the oldest
            generation.
        gc_objects: Objects that it has made but not looked at yet, likewise.
    """

    tasks: int
    threads: int
    rss: int | None
    fds: int | None
    gc_collections: tuple[int, ...]
    gc_objects: tuple[int, ...]


def health() -> Health:
    """Look at this process; within an event loop. Takes some 100 us, and never fails."""
    return Health(
        tasks=trio.lowlevel.current_statistics().tasks_living,
        threads=threading.active_count(),
        rss=_resident(),
        fds=_descriptors(),
        gc_collections=tuple(generation["collections"] for generation in gc.get_stats()),
        gc_objects=gc.get_count(),
    )


def _resident() -> int | None:
    # proc(5): size, resident, ... in pages
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE
    except OSError:
        return None


def _descriptors() -> int | None:
    try:
        # Less the one that the look itself opens.
        return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - only their number is wanted
    except OSError:
        return None


class LoopDelay:
    """How late the event loop wakes whoever waits for a time."""

    def __init__(self) -> None:
        self._samples = 0
        self._sum = 0.0
        self._most = 0.0

    async def sample(self, until: float) -> None:
        """Look each `SAMPLE_INTERVAL` until a time of trio's clock (s); a checkpoint."""
        while (now := trio.current_time()) < until:
            deadline = min(now + SAMPLE_INTERVAL, until)
            await trio.sleep_until(deadline)
            late = trio.current_time() - deadline
            self._samples += 1
            self._sum += late
            self._most = max(self._most, late)

    def take(self) -> tuple[float, float]:
        """The mean and the most (s) since this was last asked."""
        found = (self._sum / self._samples if self._samples else 0.0, self._most)
        self._samples, self._sum, self._most = 0, 0.0, 0.0
        return found
