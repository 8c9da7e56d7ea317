"""Benchmarks of an idle robot: its memory, and its costs before and after each activity."""

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
    return figures + _memory(
        f"idle robot {when}", {pid: cost.pss for pid, cost in costs.items()}, names
    )


async def memory(robot: Robot, _runs: int) -> list[Figure]:
    """Measure the memory of each process of an idle robot."""
    await robot.start()
    await trio.sleep(SETTLED)
    names = idle.of_robot(robot)
    figures = _memory("idle robot", {pid: idle.pss(pid) for pid in names}, names)
    await robot.stop()
    return figures


def _memory(what: str, sizes: dict[int, int], names: dict[int, str]) -> list[Figure]:
    """Return the PSS of each process and their sum, from sizes in KiB."""
    found = {names[pid]: size for pid, size in sizes.items()}
    found["all processes"] = sum(sizes.values())
    return [
        Figure(f"{what}: PSS of {name}", size * 1024 / 1e6, "MB", None, 1)
        for name, size in found.items()
    ]
