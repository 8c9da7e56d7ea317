"""The option `debug` logs tasks that block an event loop."""

import pytest
import trio
from support.robot import PATIENCE, Robot

pytestmark = pytest.mark.system

PROGRAM = """
import time

async def block():
    time.sleep(0.3)

def teleop_setup():
    Actions.run(block)

def teleop_main():
    pass
"""


async def test_blocking_action_is_named_with_its_line(robot: Robot) -> None:
    robot.write("studentcode.py", PROGRAM)
    with trio.fail_after(2 * PATIENCE):
        await robot.start("--debug")
        await robot.call("teleop")
        while True:
            event = await robot.logged(
                "task blocked the event loop", child="executor", level="warning"
            )
            if "studentcode.py" in str(event["where"]):
                break
            robot.log.remove(event)
    assert "studentcode.py:5 block" in event["where"]
    assert event["seconds"] >= 0.3
