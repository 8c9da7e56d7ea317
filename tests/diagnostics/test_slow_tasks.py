"""Tests of the slow-task monitor."""

import threading
import time

import pytest
import structlog
import trio

from rt.diagnostics.slow_tasks import SlowTasks, format_stack, slow_task_monitor


def spin(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


async def slow() -> None:
    await trio.lowlevel.checkpoint()
    spin(0.3)
    await trio.lowlevel.checkpoint()


async def test_slow_step_is_logged_with_its_task_and_line() -> None:
    with structlog.testing.capture_logs() as logs, SlowTasks(limit=0.2).watching() as monitor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow, name="slow task")
            nursery.start_soon(trio.sleep, 0)
    assert monitor.count == 1
    assert monitor.longest >= 0.3
    (event,) = logs
    assert event["event"] == "task blocked the event loop"
    assert event["log_level"] == "warning"
    assert event["task"] == "slow task"
    assert 0 < event["cpu"] <= event["seconds"] + 0.01
    assert event["seconds"] >= 0.3
    inner, outer = event["where"].split(" < ")[:2]
    assert "test_slow_tasks.py" in inner
    assert inner.endswith("spin")
    assert outer.endswith("slow")


async def test_quick_steps_are_not_logged() -> None:
    with structlog.testing.capture_logs() as logs, SlowTasks(limit=10).watching() as monitor:
        await slow()
    assert monitor.count == 0
    assert logs == []


async def test_slow_steps_of_a_task_are_logged_at_a_limited_rate() -> None:
    name = trio.lowlevel.current_task().name
    monitor = SlowTasks(limit=0.0, log_interval=0.1)
    with structlog.testing.capture_logs() as logs, monitor.watching():
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.15)
        await trio.lowlevel.checkpoint()
    first, *others = [entry for entry in logs if entry["task"] == name]
    assert "suppressed" not in first
    assert sum(entry.get("suppressed", 0) for entry in others) >= 40
    assert len(others) < 10


async def test_slow_task_does_not_hide_another_one() -> None:
    with structlog.testing.capture_logs() as logs, SlowTasks(limit=0.0).watching():
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(trio.lowlevel.checkpoint, name=f"task {number}")
    assert {f"task {number}" for number in range(10)} <= {entry["task"] for entry in logs}


async def test_step_that_does_not_end_is_logged_while_it_runs() -> None:
    logged = threading.Event()

    class Logger:
        def warning(self, event: str, **context: object) -> None:
            if event == "task is blocking the event loop" and "block" in str(context["where"]):
                logged.set()

    async def block() -> None:
        assert logged.wait(10)

    monitor = SlowTasks(hang_limit=0.05)
    monitor._log = Logger()  # type: ignore[assignment]
    with monitor.watching():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(block)
    assert logged.is_set()


async def test_monitor_leaves_no_thread_and_no_instrument() -> None:
    before = threading.active_count()
    monitor = SlowTasks()
    with monitor.watching():
        assert threading.active_count() == before + 1
        await trio.lowlevel.checkpoint()
    assert threading.active_count() == before
    with pytest.raises(KeyError):
        trio.lowlevel.remove_instrument(monitor)


async def test_one_event_loop_has_one_monitor() -> None:
    before = threading.active_count()
    with structlog.testing.capture_logs() as logs, slow_task_monitor() as first:
        with slow_task_monitor() as second:
            assert second is first
            assert threading.active_count() == before + 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow, name="slow task")
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert [entry["task"] for entry in logs].count("slow task") == 1
    with slow_task_monitor() as third:
        assert third is not first


def test_event_loop_of_another_thread_is_monitored() -> None:
    async def main() -> int:
        with SlowTasks(limit=0.05).watching() as monitor:
            spin(0.1)
            await trio.lowlevel.checkpoint()
            return monitor.count

    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(trio.run(main)))
    thread.start()
    thread.join(20)
    assert len(found) == 1


def test_missing_frame_has_no_stack() -> None:
    assert format_stack(None) is None
