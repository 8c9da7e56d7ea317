"""Motion does not begin while the root is stopped, measured at a motor."""

import os
import signal
import time

import pytest
import trio
from support.driving import DRIVE, driving
from support.robot import Robot

pytestmark = pytest.mark.system

SETTLED = 0.3
"""Time (s) within which the motor must stop, even on a busy machine."""
OBSERVED = 2.0

DRIVES = f"""
def autonomous_main():
    {DRIVE}
"""
IS_LATE_ONCE = f"""
import time
calls = 0
def autonomous_main():
    global calls
    calls += 1
    if calls == 20:
        print("waits")
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            try:
                time.sleep(0.05)
            except BaseException:
                pass
    {DRIVE}
"""
ACTS_NOW_AND_THEN = f"""
async def act():
    while True:
        {DRIVE}
        await Actions.sleep(0.05)
        print("waits")
        await Actions.sleep(1.5)
def autonomous_setup():
    Actions.run(act)
"""
WAITS_FIRST = f"""
calls = 0
def autonomous_main():
    global calls
    calls += 1
    if calls == 5:
        print("waits")
    if calls > 20 or calls < 5:
        {DRIVE}
"""


@pytest.mark.parametrize(
    "program",
    [IS_LATE_ONCE, ACTS_NOW_AND_THEN, WAITS_FIRST],
    ids=["late once", "now and then", "later"],
)
async def test_code_that_writes_again_later_moves_nothing(robot: Robot, program: str) -> None:
    board = await driving(robot, program)
    await robot.logged("waits")
    await trio.sleep(0.3)
    os.kill(robot.root(), signal.SIGSTOP)
    stopped = time.monotonic()
    await trio.sleep(OBSERVED)
    assert board.moved_since(stopped + SETTLED) == 0.0
    os.kill(robot.root(), signal.SIGCONT)


@pytest.mark.parametrize("child", ["device", "brake"])
@pytest.mark.parametrize("after", [0.1, 0.3])
async def test_restarted_child_moves_nothing(robot: Robot, child: str, after: float) -> None:
    board = await driving(robot, DRIVES)
    os.kill(robot.child(child), signal.SIGKILL)
    await trio.sleep(after)
    os.kill(robot.root(), signal.SIGSTOP)
    stopped = time.monotonic()
    await trio.sleep(OBSERVED)
    assert board.moved_since(stopped + SETTLED) == 0.0
    os.kill(robot.root(), signal.SIGCONT)
