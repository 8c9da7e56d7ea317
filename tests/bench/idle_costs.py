"""Benchmark of an idle robot before and after each activity."""

import trio
from bench.figures import Figure
from support import activities, idle
from support.robot import Robot

SETTLED = 2.0
"""Time (s) to settle after an activity."""


async def idle_cost(robot: Robot, seconds: int) -> list[Figure]:
    """Measure wake-ups, processor time and memory of all processes, each for ``seconds``."""
    robot.write("studentcode.py", activities.PROGRAM)
    await robot.start()
    figures = await _measure(robot, "before any activity", seconds)
    for name, activity in activities.ALL.items():
        await activity(robot)
        figures += await _measure(robot, f"after {name.replace('_', ' ')}", seconds)
    await robot.stop()
    return figures


async def _measure(robot: Robot, when: str, seconds: int) -> list[Figure]:
    await trio.sleep(SETTLED)
    names = idle.of_robot(robot)
    costs = await idle.costs(names, seconds)
    figures = [
        Figure(
            f"idle robot {when}: wake-ups",
            sum(cost.wakeups for cost in costs.values()),
            "/s",
            25,
            1,
        ),
        Figure(
            f"idle robot {when}: processor",
            sum(cost.cpu for cost in costs.values()),
            "of a core",
            0.02,
            1,
        ),
    ]
    return figures + [
        Figure(f"idle robot {when}: PSS of {names[pid]}", cost.pss / 1000, "MB", None, 1)
        for pid, cost in costs.items()
    ]
