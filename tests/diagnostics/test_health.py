"""What a process says of its health is so."""

import gc
import os
import resource
import time

import pytest
import trio
from trio.testing import MockClock

from rt.diagnostics import LoopDelay, health


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


async def test_memory_and_threads_and_garbage_are_there() -> None:
    before = health()
    gc.collect()
    ballast = b"x" * 50_000_000
    after = health()
    assert before.rss
    assert after.rss
    assert after.rss - before.rss > 40_000_000, len(ballast)
    assert after.threads >= 1
    assert after.gc_collections[2] == before.gc_collections[2] + 1


async def test_a_loop_that_is_kept_waiting_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    delay = LoopDelay()

    async def dawdle() -> None:
        await trio.lowlevel.checkpoint()
        time.sleep(0.2)  # noqa: ASYNC251 - that is the mistake that is looked for

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: delay.sample(until=trio.current_time() + 0.05))
        await trio.lowlevel.checkpoint()
        nursery.start_soon(dawdle)
    mean, most = delay.take()
    assert 0.05 < mean <= most < 10
    assert delay.take() == (0.0, 0.0)


async def test_it_is_looked_at_each_second(autojump_clock: MockClock) -> None:
    delay = LoopDelay()
    await delay.sample(until=trio.current_time() + 10)
    assert delay._samples == 10


async def test_a_process_without_a_descriptor_left_is_looked_at_all_the_same() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        found = health()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.fds is None
    assert found.rss is None
    assert found.tasks
