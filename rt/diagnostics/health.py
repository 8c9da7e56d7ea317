"""The health of a process: its resources and the delay of its event loop."""

import gc
import os
import threading
from pathlib import Path
from typing import NoReturn

import msgspec
import trio

from rt import log
from rt.diagnostics.slow_tasks import SlowTasks

SAMPLE_INTERVAL = 1.0
"""Time between two measurements of the delay of the event loop (s)."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The resources that a process uses.

    Attributes:
        tasks: Number of tasks of the event loop.
        threads: Number of Python threads.
        rss: Resident memory, including shared memory (bytes); None if no descriptor is available.
        fds: Number of open descriptors; None if no descriptor is available.
        gc_collections: Number of garbage collections per generation, the youngest first.
        gc_objects: Counts of `gc.get_count` per generation.
    """

    tasks: int
    threads: int
    rss: int | None
    fds: int | None
    gc_collections: tuple[int, ...]
    gc_objects: tuple[int, ...]


def health() -> Health:
    """Return the health of this process, from within an event loop; takes some 100 us."""
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
        # Without the descriptor of the directory itself.
        return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - only names are needed
    except OSError:
        return None


async def loop_delay(duration: float) -> tuple[int, float, float]:
    """Measure for a time in s how late the event loop wakes sleeping tasks; a checkpoint.

    Returns:
        The number of samples, one for each `SAMPLE_INTERVAL`, and their mean and maximum in s.
    """
    end = trio.current_time() + duration
    samples, total, maximum = 0, 0.0, 0.0
    while (now := trio.current_time()) < end:
        deadline = min(now + SAMPLE_INTERVAL, end)
        await trio.sleep_until(deadline)
        late = trio.current_time() - deadline
        samples, total, maximum = samples + 1, total + late, max(maximum, late)
    return samples, total / max(samples, 1), maximum


async def report_health(
    process: str, interval: float, slow_tasks: SlowTasks | None = None
) -> NoReturn:
    """Log the health of this process and the delay of its event loop until cancelled.

    Args:
        process: The name of the process.
        interval: Time between two log events (s).
        slow_tasks: Counts slow steps, if the option `debug` is set.
    """
    logger = log.get_logger()
    while True:
        _, mean, maximum = await loop_delay(interval)
        steps: dict[str, object] = {}
        if slow_tasks is not None:
            steps = {"slow_steps": slow_tasks.count, "slowest_step": round(slow_tasks.longest, 3)}
        logger.debug(
            "health",
            process=process,
            **msgspec.structs.asdict(health()),
            delay_mean=round(mean, 6),
            delay_max=round(maximum, 6),
            **steps,
        )
