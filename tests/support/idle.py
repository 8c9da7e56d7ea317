"""What an idle robot costs: how often its processes wake up, and the processor time that they use."""

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
    """What one process costs.

    Attributes:
        wakeups: How often a second its threads went to sleep, which is how often they woke up.
        cpu: Share of one processor.
        pss: Memory (kB), shared pages in proportion.
    """

    wakeups: float
    cpu: float
    pss: int


def _switches(pid: int) -> int:
    """How often all threads of a process went to sleep; being preempted is no wake-up."""
    lines = [
        line
        for path in Path(f"/proc/{pid}/task").glob("*/status")
        for line in path.read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith(VOLUNTARY))


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def costs(pids: Iterable[int], seconds: float) -> dict[int, Cost]:
    """What processes cost over a while; those that ended meanwhile are left out."""
    before = {pid: (_switches(pid), _ticks(pid)) for pid in pids}
    began = trio.current_time()
    await trio.sleep(seconds)
    elapsed = trio.current_time() - began
    return {
        pid: Cost(
            (_switches(pid) - switches) / elapsed,
            (_ticks(pid) - ticks) / TICKS / elapsed,
            _pss(pid),
        )
        for pid, (switches, ticks) in before.items()
        if _exists(pid)
    }


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def of_robot(robot: Robot) -> dict[int, str]:
    """The processes of a robot by pid: the root, and each child by its last start."""
    names = {robot.root(): "root"}
    for entry in robot.log:
        if entry["event"] == "child is ready" and Path(f"/proc/{entry['pid']}").exists():
            names[int(entry["pid"])] = entry["child"]
    return names
