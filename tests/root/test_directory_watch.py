"""The watch of the instance directory when it cannot be restored."""

from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from rt.errors import InstanceBusyError
from rt.root.directory_watch import watch_directory


class Taken:
    """An instance whose name another robot has taken."""

    directory = Path("/nowhere")

    def __init__(self, is_in_place: bool) -> None:
        self._is_in_place = is_in_place

    def restore(self) -> bool:
        raise InstanceBusyError("another robot runs")

    def is_in_place(self) -> bool:
        return self._is_in_place


@pytest.mark.parametrize(("is_in_place", "ends"), [(True, 0), (False, 4)])
async def test_mode_ends_while_no_command_reaches_the_robot(
    is_in_place: bool, ends: int, autojump_clock: trio.testing.MockClock
) -> None:
    reasons: list[str] = []
    instance: Any = Taken(is_in_place)
    registrar: Any = None
    with structlog.testing.capture_logs() as logs, trio.move_on_after(2.25):
        await watch_directory(
            instance, registrar, reasons.append, ["tcp://127.0.0.1:6000"], interval=0.5
        )
    assert reasons == ["commands do not reach the robot: see the log"] * ends
    assert [entry["event"] for entry in logs] == ["cannot restore the instance directory"]
