"""A whole robot for a test, and a look at what it leaves behind."""

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from support.robot import BINARY, Plug, Robot

EVERY_CASE = os.environ.get("BINARY_CASES") == "all"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run one case of each test against the executable, whose cases differ in what team code does and not in how rt is started.

    BINARY_CASES=all runs all. Tests that are marked `every_case` are left alone.
    """
    if not BINARY or EVERY_CASE:
        return
    seen: set[str] = set()
    left_out = []
    for item in items:
        name = item.nodeid.partition("[")[0]
        if item.path.parent == Path(__file__).parent and "every_case" not in item.keywords and name in seen:
            left_out.append(item)
        seen.add(name)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


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
