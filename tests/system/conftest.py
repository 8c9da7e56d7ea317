"""A whole robot for a test, and a look at what it leaves behind."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from support.robot import Plug, Robot


@contextlib.asynccontextmanager
async def _standing(nursery: trio.Nursery) -> AsyncIterator[Robot]:
    folder = Path(tempfile.mkdtemp(prefix="rt-"))
    robot = Robot(folder, nursery)
    try:
        yield robot
        if robot.process is not None and robot.process.returncode is None:
            await robot.stop()
        left = robot.leftovers()
    finally:
        robot.sweep()
    assert left == [], f"the robot left {left}"


@pytest.fixture
async def robot(nursery: trio.Nursery) -> AsyncIterator[Robot]:
    """A robot that is not started; whatever of it is left in the end is a failure."""
    async with _standing(nursery) as robot:
        yield robot


@pytest.fixture
async def neighbour(nursery: trio.Nursery) -> AsyncIterator[Robot]:
    """Another robot on the same machine."""
    async with _standing(nursery) as robot:
        yield robot


@pytest.fixture(params=["pty", "tcp"])
def plug(request: pytest.FixtureRequest, robot: Robot) -> Plug:
    """How a device is connected."""
    return robot.plug_pty if request.param == "pty" else robot.plug_tcp
