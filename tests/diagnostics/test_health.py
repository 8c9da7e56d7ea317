"""Tests of the health figures of a process."""

import gc
import os
import resource
import time

import trio
from trio.testing import MockClock

from rt.diagnostics import health, loop_delay


async def test_open_descriptors_and_tasks_are_counted() -> None:
    before = health()
    ends = os.pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        after = health()
        nursery.cancel_scope.cancel()
    for end in ends:
        os.close(end)
    assert before.fds
    assert after.fds == before.fds + 2
    assert after.tasks == before.tasks + 1
    assert health().fds == before.fds


async def test_memory_threads_and_garbage_are_measured() -> None:
    before = health()
    gc.collect()
    ballast = b"x" * 50_000_000
    after = health()
    assert before.rss
    assert after.rss
    assert after.rss - before.rss > 40_000_000, len(ballast)
    assert after.threads >= 1
    assert after.gc_collections[2] == before.gc_collections[2] + 1


async def test_delay_of_a_blocked_loop_is_measured() -> None:
    found: list[tuple[int, float, float]] = []

    async def measure() -> None:
        found.append(await loop_delay(0.05))

    async def block() -> None:
        await trio.lowlevel.checkpoint()
        time.sleep(0.2)  # noqa: ASYNC251 - blocks the event loop

    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(block)
    ((_, mean, maximum),) = found
    assert 0.05 < mean <= maximum < 10


async def test_delay_is_sampled_every_second(autojump_clock: MockClock) -> None:
    samples, mean, maximum = await loop_delay(10)
    assert samples == 10
    assert mean == maximum == 0.0


async def test_health_works_without_a_free_descriptor() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        found = health()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.fds is None
    assert found.rss is None
    assert found.tasks
