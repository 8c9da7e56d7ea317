"""Activities of a robot, after which it must be idle again."""

import os
import signal
from collections.abc import Awaitable, Callable

import trio
from support.robot import Device, Robot

from rt.protocol.datagrams import GamepadState

Activity = Callable[[Robot], Awaitable[None]]
PROGRAM = """
def autonomous_main():
    pass


def teleop_main():
    pass
"""


async def auto(robot: Robot) -> None:
    await robot.call("auto")
    await robot.call("idle")


async def teleop(robot: Robot) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.drive, GamepadState(0.0, 0.5, 0.0, 0.0, 0))
        await robot.call("teleop")
        await robot.logged("mode began")
        await robot.call("idle")
        nursery.cancel_scope.cancel()


async def write(robot: Robot) -> None:
    before = _count(robot, "device disconnected")
    motor = Device("polar-bear")
    scope = await robot.plug_pty(motor)
    await robot.connected(motor, since=before)
    done = await robot.command("write", "motor", "duty_cycle=0.5", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    scope.cancel()
    await robot.logged("device disconnected", count=before + 1)


async def replug(robot: Robot) -> None:
    before = _count(robot, "device disconnected")
    for count in range(before, before + 2):
        motor = Device("polar-bear")
        scope = await robot.plug_pty(motor)
        await robot.connected(motor, since=count)
        scope.cancel()
        await robot.logged("device disconnected", count=count + 1)


def crash(name: str) -> Activity:
    """Return an activity that kills a child and waits until it is ready again."""

    async def kill(robot: Robot) -> None:
        before = sum(
            entry["event"] == "child is ready" and entry["child"] == name for entry in robot.log
        )
        os.kill(robot.child(name), signal.SIGKILL)
        await robot.logged("child is ready", child=name, count=before + 1)

    return kill


def _count(robot: Robot, event: str) -> int:
    return sum(entry["event"] == event for entry in robot.log)


ALL: dict[str, Activity] = {
    "auto": auto,
    "teleop": teleop,
    "rt_write": write,
    "replug": replug,
    "device_killed": crash("device"),
    "executor_killed": crash("executor"),
    "brake_killed": crash("brake"),
}
