"""Benchmarks with many devices: reports, idle lines, and writes while other devices report."""

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio
from bench.figures import Figure, Load, Work, p99
from bench.whole import write_program, writes
from support.robot import PATIENCE, Robot

REPORTING = 256
BUSY = 64
IDLE = 32
SECONDS = 12.0
IDLE_SECONDS = 20.0


class Crowd:
    """The process that emulates many devices."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""

    async def measure(self, seconds: float) -> dict[str, Any]:
        """Count frames for some time (s)."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(f"measure {seconds}\n".encode())
        answer: dict[str, Any] = json.loads(await self._line())
        return answer

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            data = await self._process.stdout.receive_some()
            if not data:
                raise RuntimeError("the crowd has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


@contextlib.asynccontextmanager
async def crowd_of(robot: Robot, count: int) -> AsyncIterator[Crowd]:
    """Connect devices to a running robot until the end of the block."""
    process = await trio.lowlevel.open_process(
        [
            sys.executable,
            str(Path(__file__).with_name("crowd.py")),
            str(robot.port_base + 4),
            str(count),
            robot.shm_prefix(),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        await robot.logged("device connected", count=count)
        yield Crowd(process)
    finally:
        process.kill()
        with trio.move_on_after(PATIENCE, shield=True):
            await process.wait()


async def many(robot: Robot, count: int) -> list[Figure]:
    """Measure many devices that report at 25 Hz."""
    await robot.start()
    async with crowd_of(robot, count) as crowd:
        await crowd.measure(2.0)  # until it has settled
        work, load = Work(robot.child("device")), Load()
        result = await crowd.measure(SECONDS)
        share, others = work.share(), load.share()
    await robot.stop()
    sent, arrived, ages = result["sent"], result["arrived"], result["ages"]
    name = f"{count} devices at 25 Hz"
    return [
        Figure(f"{name}: frames that did not arrive", sent - arrived, f"of {sent}", 0, sent),
        Figure(
            f"{name}: age in the buffer, median", statistics.median(ages), "ms", None, len(ages)
        ),
        Figure(f"{name}: age in the buffer, p99", p99(ages), "ms", 25, len(ages)),
        Figure(f"{name}: the device process", share, "of a core", 0.20, 1),
        Figure(f"{name}: whatever runs on the machine", others, "of all cores", None, 1),
    ]


async def idle(robot: Robot, count: int) -> list[Figure]:
    """Measure connected devices without subscriptions."""
    await robot.start()
    async with crowd_of(robot, count):
        await robot.call("unsubscribe")
        await trio.sleep(2.0)
        work, load = Work(robot.child("device")), Load()
        await trio.sleep(IDLE_SECONDS)
        share, others = work.share(), load.share()
    await robot.stop()
    return [
        Figure(f"{count} idle devices: the device process", share, "of a core", 0.01, 1),
        Figure(
            f"{count} idle devices: whatever runs on the machine", others, "of all cores", None, 1
        ),
    ]


async def busy_write(robot: Robot, count: int) -> list[Figure]:
    """Measure `Robot.write` to the wire while other devices report."""
    write_program(robot)
    await robot.start()
    async with crowd_of(robot, BUSY):
        load = Load()
        latencies = await writes(robot, count)
        others = load.share()
    await robot.stop()
    name = f"Robot.write to DEV_WRITE on the wire while {BUSY} devices report"
    return [
        Figure(f"{name}, median", statistics.median(latencies), "ms", 0.5, len(latencies)),
        Figure(f"{name}, p99", p99(latencies), "ms", 2.0, len(latencies)),
        Figure(f"{name}: whatever runs on the machine", others, "of all cores", None, 1),
    ]
