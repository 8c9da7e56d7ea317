"""Tests of periodic calls: no drift, and late calls are counted and skipped."""

import math

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from rt.process.periodic import Schedule, spin


async def spin_for(durations: list[float], interval: float) -> tuple[list[float], list[int]]:
    """Return when each call began, relative to the first, and the logged overruns."""
    began: list[float] = []
    start = trio.current_time()

    async def call(*words: str, more: str) -> None:
        assert words == ("a", "b")
        assert more == "c"
        began.append(trio.current_time() - start)
        if len(began) > len(durations):
            raise StopAsyncIteration
        await trio.sleep(durations[len(began) - 1])

    with structlog.testing.capture_logs() as logs, pytest.raises(StopAsyncIteration):
        await spin(call, "a", "b", interval=interval, more="c")
    return began, [entry["overruns"] for entry in logs]


async def test_calls_begin_one_interval_apart(autojump_clock: MockClock) -> None:
    began, overruns = await spin_for([0.0, 0.9, 0.3, 1.0, 0.5], 1.0)
    assert began == pytest.approx([0, 1, 2, 3, 4, 5])
    assert overruns == []


async def test_calls_do_not_drift(autojump_clock: MockClock) -> None:
    began, _ = await spin_for([0.05] * 1000, 0.1)
    assert began[-1] == pytest.approx(100.0, abs=1e-9)


async def test_late_call_is_skipped_and_counted(autojump_clock: MockClock) -> None:
    began, overruns = await spin_for([0.0, 2.5, 0.0], 1.0)
    assert began == pytest.approx([0, 1, 4, 5])
    assert overruns == [2]


async def test_warning_is_logged_when_the_count_has_doubled(autojump_clock: MockClock) -> None:
    _, overruns = await spin_for([1.5] * 20, 1.0)
    assert overruns == [1, 2, 4, 8, 16]


async def test_cancel_ends_the_calls(autojump_clock: MockClock) -> None:
    count = 0

    async def call() -> None:
        nonlocal count
        count += 1

    with trio.move_on_after(3.5):
        await spin(call)
    assert count == 4


async def test_call_without_a_checkpoint_lets_other_tasks_run(autojump_clock: MockClock) -> None:
    async def call() -> None: ...

    with trio.move_on_after(1) as scope:
        await spin(call, interval=1e-3)
    assert scope.cancelled_caught


@pytest.mark.parametrize("interval", [0, -1, math.inf, math.nan])
async def test_invalid_interval_is_rejected(interval: float) -> None:
    with pytest.raises(ValueError, match="invalid interval"):
        await spin(trio.sleep, 0, interval=interval)


async def test_error_of_a_call_propagates() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await spin(fail)


async def test_function_that_is_not_async_is_rejected() -> None:
    def tick() -> None: ...

    with pytest.raises(TypeError, match="tick is not async"):
        await spin(tick)  # type: ignore[arg-type]


@given(
    start=st.floats(-1e6, 1e6),
    interval=st.floats(1e-3, 1e3),
    delays=st.lists(st.floats(0, 1e4), max_size=30),
)
def test_each_deadline_is_returned_or_counted_as_an_overrun(
    start: float, interval: float, delays: list[float]
) -> None:
    schedule = Schedule(start, interval)
    now = start
    before = schedule.deadline
    for given_before, delay in enumerate(delays):
        now = max(now, schedule.deadline) + delay
        deadline = schedule.next(now)
        assert deadline >= now
        assert deadline > before
        assert deadline - now <= interval * (1 + 1e-6) + 1e-6
        assert deadline == start + (given_before + 1 + schedule.overruns) * interval
        before = deadline
