"""A task that keeps all others waiting is named, with the line where it was."""

import threading
import time

import pytest
import structlog
import trio

from rt.diagnostics import slow_tasks as module
from rt.diagnostics.slow_tasks import SlowTasks, format_stack, slow_task_monitor


def dawdle(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def slow() -> None:
    await trio.lowlevel.checkpoint()
    dawdle(0.3)
    await trio.lowlevel.checkpoint()


async def test_a_slow_step_names_its_task_and_its_line() -> None:
    with structlog.testing.capture_logs() as logs, SlowTasks(limit=0.2).watching() as steps:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow, name="the slow one")
            nursery.start_soon(trio.sleep, 0)
    assert steps.count == 1
    assert steps.longest >= 0.3
    (event,) = logs
    assert event["event"] == "a task kept all others waiting"
    assert event["log_level"] == "warning"
    assert event["task"] == "the slow one"
    assert 0 < event["cpu"] <= event["seconds"] + 0.01
    assert event["seconds"] >= 0.3
    inner, outer = event["where"].split(" < ")[:2]
    assert "test_slow_tasks.py" in inner
    assert inner.endswith("dawdle")
    assert outer.endswith("slow")


async def test_quick_steps_are_nobodys_business() -> None:
    with structlog.testing.capture_logs() as logs, SlowTasks(limit=10).watching() as steps:
        await slow()
    assert steps.count == 0
    assert logs == []


async def test_the_log_is_told_once_a_second_and_the_rest_is_counted() -> None:
    with structlog.testing.capture_logs() as logs, SlowTasks(limit=0.0).watching() as steps:
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        _, unsaid = steps._told[trio.lowlevel.current_task().name]
        steps._told = {name: (told - 60, count) for name, (told, count) in steps._told.items()}
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
    assert "unsaid" not in logs[0]
    assert any(entry.get("unsaid") == unsaid for entry in logs)


async def test_a_task_that_is_often_slow_hides_no_other_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "NAMES_MAX", 3)
    with structlog.testing.capture_logs() as logs, SlowTasks(limit=0.0).watching() as steps:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(trio.lowlevel.checkpoint, name=f"task {number}")
    assert {f"task {number}" for number in range(10)} <= {entry["task"] for entry in logs}
    assert len(steps._told) <= 3


async def test_a_step_that_does_not_end_is_told_of_while_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HANGING", 0.05)
    told = threading.Event()

    class Logger:
        def warning(self, event: str, **context: object) -> None:
            if event == "a task keeps all others waiting" and "in_the_way" in str(context["where"]):
                told.set()

    async def in_the_way() -> None:
        assert told.wait(10)

    steps = SlowTasks()
    steps._log = Logger()  # type: ignore[assignment]
    with steps.watching():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_the_way)
    assert told.is_set()


async def test_nothing_of_it_stays() -> None:
    before = threading.active_count()
    steps = SlowTasks()
    with steps.watching():
        assert threading.active_count() == before + 1
        await trio.lowlevel.checkpoint()
    assert threading.active_count() == before
    with pytest.raises(KeyError):
        trio.lowlevel.remove_instrument(steps)


async def test_two_watchers_of_one_loop_are_one() -> None:
    before = threading.active_count()
    with structlog.testing.capture_logs() as logs, slow_task_monitor() as first:
        with slow_task_monitor() as second:
            assert second is first
            assert threading.active_count() == before + 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow, name="the slow one")
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert [entry["task"] for entry in logs].count("the slow one") == 1
    with slow_task_monitor() as third:
        assert third is not first


def test_it_watches_the_loop_of_a_second_thread_too() -> None:
    async def main() -> int:
        with SlowTasks(limit=0.05).watching() as steps:
            dawdle(0.1)
            await trio.lowlevel.checkpoint()
            return steps.count

    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(trio.run(main)))
    thread.start()
    thread.join(20)
    assert len(found) == 1


def test_no_stack_is_no_place() -> None:
    assert format_stack(None) is None
