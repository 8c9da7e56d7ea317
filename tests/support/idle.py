"""The costs of an idle robot: wake-ups and processor time of its processes, and their memory."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import trio
from support.robot import Robot

TICKS = os.sysconf("SC_CLK_TCK")
VOLUNTARY = "voluntary_ctxt_switches:"


@dataclass
class Cost:
    """The costs of one process.

    Attributes:
        wakeups: How often per second its threads slept and woke up.
        cpu: Share of one processor.
        pss: Memory (KiB), with a proportional share of shared pages.
    """

    wakeups: float
    cpu: float
    pss: int


def _switches(pid: int) -> int:
    """Return how often the threads of a process went to sleep; preemptions do not count."""
    lines = [
        line
        for path in Path(f"/proc/{pid}/task").glob("*/status")
        for line in path.read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith(VOLUNTARY))


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def pss(pid: int) -> int:
    """Return the memory of a process (KiB), with a proportional share of shared pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def costs(pids: Iterable[int], seconds: float) -> dict[int, Cost]:
    """Measure the costs of processes for some time, without those that exit in it."""
    before = {pid: (_switches(pid), _ticks(pid)) for pid in pids}
    began = trio.current_time()
    await trio.sleep(seconds)
    elapsed = trio.current_time() - began
    return {
        pid: Cost(
            (_switches(pid) - switches) / elapsed,
            (_ticks(pid) - ticks) / TICKS / elapsed,
            pss(pid),
        )
        for pid, (switches, ticks) in before.items()
        if _exists(pid)
    }


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def of_robot(robot: Robot) -> dict[int, str]:
    """Return the processes of a robot by pid: the root, and the last start of each child."""
    names = {robot.root(): "root"}
    for entry in robot.log:
        if entry["event"] == "child is ready" and Path(f"/proc/{entry['pid']}").exists():
            names[int(entry["pid"])] = entry["child"]
    return names
