"""An idle robot uses no processor time: no process polls or spins."""

import pytest
import trio
from support import activities, idle
from support.robot import PATIENCE, Robot

pytestmark = pytest.mark.system

MOST_WAKEUPS = 25.0
"""Maximum wake-ups per second of all processes of an idle robot."""
MOST_CPU = 0.3
"""Maximum share of one processor that they use; a spinning process uses all that it gets."""
SECONDS = 4.0


async def quiet(robot: Robot) -> None:
    """Wait until the robot is as quiet as an idle robot."""
    told = ""
    with trio.move_on_after(PATIENCE):
        while True:
            names = idle.of_robot(robot)
            costs = await idle.costs(names, SECONDS)
            told = ", ".join(f"{names[pid]}: {cost}" for pid, cost in costs.items())
            wakeups = sum(cost.wakeups for cost in costs.values())
            if wakeups <= MOST_WAKEUPS and sum(cost.cpu for cost in costs.values()) <= MOST_CPU:
                return
    raise AssertionError(f"the idle robot is not quiet: {told}")


@pytest.mark.parametrize("activity", activities.ALL)
async def test_idle_robot_is_quiet_after_an_activity(robot: Robot, activity: str) -> None:
    robot.write("studentcode.py", activities.PROGRAM)
    await robot.start()
    await quiet(robot)
    await activities.ALL[activity](robot)
    await quiet(robot)
