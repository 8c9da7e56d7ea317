"""A clock that is set while the robot runs is said, and a clock that is kept exact is not."""

import time

import pytest
import structlog
import trio
from trio.testing import MockClock

from rt.diagnostics import watch_clock


@pytest.mark.parametrize(
    ("moved", "said"),
    [(86400.0, "the clock was set forward"), (-3600.0, "the clock was set back"), (0.01, None)],
)
async def test_that_the_clock_was_set_is_said_once(
    moved: float, said: str | None, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    real = time.time
    with structlog.testing.capture_logs() as logs:
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch_clock)
                await trio.sleep(3)
                monkeypatch.setattr(time, "time", lambda: real() + moved)
    assert [(entry["event"], entry["clock_moved"]) for entry in logs] == (
        [(said, moved)] if said else []
    )
