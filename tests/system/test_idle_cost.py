"""An idle robot is quiet, whatever it did before: no process polls or spins."""

import os
import signal
from collections.abc import Awaitable, Callable

import pytest
import trio
from support import idle
from support.robot import PATIENCE, Device, Robot

from rt.protocol.control import GamepadState

pytestmark = pytest.mark.system

MOST_WAKEUPS = 40.0
"""Wake-ups a second of all processes of an idle robot together."""
MOST_CPU = 0.3
"""Share of one processor of all of them: a process that spins uses all that it gets."""
SECONDS = 2.0
PROGRAM = """
def autonomous_main():
    pass


def teleop_main():
    pass
"""


async def quiet(robot: Robot) -> None:
    """Wait until the robot is as quiet as an idle robot is; what follows an activity may take a while."""
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


async def auto(robot: Robot) -> None:
    await robot.call("auto")
    await robot.call("idle")


async def teleop(robot: Robot) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.drive, GamepadState(0.0, 0.5, 0.0, 0.0, 0))
        await robot.call("teleop")
        await robot.said("mode began")
        await robot.call("idle")
        nursery.cancel_scope.cancel()


async def write(robot: Robot) -> None:
    motor = Device("polar-bear")
    scope = await robot.plug_pty(motor)
    await robot.connected(motor)
    done = await robot.command("write", "motor", "duty_cycle=0.5", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    scope.cancel()
    await robot.said("the Smart Device is gone")


async def replug(robot: Robot) -> None:
    for count in range(1, 3):
        motor = Device("polar-bear")
        scope = await robot.plug_pty(motor)
        await robot.connected(motor, since=count - 1)
        scope.cancel()
        await robot.said("the Smart Device is gone", count=count)


def crash(name: str) -> Callable[[Robot], Awaitable[None]]:
    async def kill(robot: Robot) -> None:
        os.kill(robot.child(name), signal.SIGKILL)
        await robot.said("child is ready", child=name, count=2)

    return kill


@pytest.mark.parametrize(
    "activity",
    [auto, teleop, write, replug, crash("device"), crash("executor"), crash("brake")],
    ids=["auto", "teleop", "rt_write", "replug", "device_killed", "executor_killed", "brake_killed"],
)
async def test_idle_robot_is_quiet_after_an_activity(
    robot: Robot, activity: Callable[[Robot], Awaitable[None]]
) -> None:
    robot.write("studentcode.py", PROGRAM)
    await robot.start()
    await quiet(robot)
    await activity(robot)
    await quiet(robot)
