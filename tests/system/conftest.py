"""Fixtures: robots that must leave nothing behind; selection of cases."""

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from support.robot import BINARY, Plug, Robot

CASES = os.environ.get("SYSTEM_CASES", "first" if BINARY else "all")
"""The cases of each test to run: "first", the "others", or "all"."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the cases that `CASES` excludes.

    The cases of a test differ in what team code does and not in how rt is started, so that each
    runs either from source or against the executable in CI. Tests marked `every_case` run all.
    """
    if CASES == "all":
        return
    seen: set[str] = set()
    left_out: set[pytest.Item] = set()
    for item in items:
        name = item.nodeid.partition("[")[0]
        is_other = name in seen
        seen.add(name)
        is_here = item.path.parent == Path(__file__).parent
        if is_here and "every_case" not in item.keywords and is_other != (CASES == "others"):
            left_out.add(item)
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@contextlib.asynccontextmanager
async def _new_robot(nursery: trio.Nursery) -> AsyncIterator[Robot]:
    folder = Path(tempfile.mkdtemp(prefix="rt-"))
    robot = Robot(folder, nursery)
    try:
        yield robot
        if robot.process is not None and robot.process.returncode is None:
            await robot.stop()
        left = robot.leftovers()
    finally:
        robot.clean_up()
    assert left == [], f"the robot left {left}"


@pytest.fixture
async def robot(nursery: trio.Nursery) -> AsyncIterator[Robot]:
    """A robot that is not started. It must leave nothing behind."""
    async with _new_robot(nursery) as robot:
        yield robot


@pytest.fixture
async def neighbour(nursery: trio.Nursery) -> AsyncIterator[Robot]:
    """Another robot on the same machine."""
    async with _new_robot(nursery) as robot:
        yield robot


@pytest.fixture(params=["pty", "tcp"])
def plug(request: pytest.FixtureRequest, robot: Robot) -> Plug:
    """How a device is connected."""
    return robot.plug_pty if request.param == "pty" else robot.plug_tcp
