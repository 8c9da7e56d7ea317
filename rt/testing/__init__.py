"""An emulated robot as a pytest fixture, for tests of team code and of components.

The fixture `start_robot` starts the same program as `rt run`, with emulated devices, in a temporary
directory and on free ports, so it disturbs no other robot. When the test ends, the robot is stopped
and its processes and files are removed. Tests are async functions that pytest-trio runs.
The extra `testing` of rt installs both.

Examples:
    ::

        pytest_plugins = ["rt.testing"]

        async def test_motor_stops_at_the_bumper(start_robot):
            robot = await start_robot(
                {"left_motor": "polar-bear@1", "bumper": "limit-switch@1"}, code="studentcode.py"
            )
            await robot.call("auto")
            await robot.devices["left_motor"].wait_for("duty_cycle", 0.5)
            robot.devices["bumper"].set("switch0", True)
            await robot.devices["left_motor"].wait_for("duty_cycle", 0.0)

PYTEST_DONT_REWRITE: this module has no assertion, and tests may import it before pytest does.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_trio
import trio

from rt.testing.device import Device
from rt.testing.robot import Robot
from rt.testing.start import StartRobot

__all__ = ["Device", "Robot", "StartRobot", "start_robot"]


@pytest_trio.trio_fixture  # type: ignore[untyped-decorator]  # it has no types
async def start_robot(request: pytest.FixtureRequest) -> AsyncIterator[StartRobot]:
    """Start emulated robots that are stopped when the test ends; see `StartRobot`."""
    async with trio.open_nursery() as nursery:
        yield StartRobot(nursery, request.path.parent)
        nursery.cancel_scope.cancel("the test has ended")
