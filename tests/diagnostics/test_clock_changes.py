"""Tests of the log events about changes of the system clock."""

import time

import pytest
import structlog
import trio
from trio.testing import MockClock

from rt.diagnostics.clock_changes import watch_clock


@pytest.mark.parametrize(
    ("moved", "event"),
    [
        (86400.0, "system clock was set forward"),
        (-3600.0, "system clock was set back"),
        (0.01, None),
    ],
)
async def test_clock_change_is_logged_once(
    moved: float, event: str | None, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    real = time.time
    with structlog.testing.capture_logs() as logs:
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch_clock)
                await trio.sleep(3)
                monkeypatch.setattr(time, "time", lambda: real() + moved)
    assert [(entry["event"], entry["clock_moved"]) for entry in logs] == (
        [(event, moved)] if event else []
    )
