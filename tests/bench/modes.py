"""Benchmarks of the begin of a mode, and of stopping while both cores are busy."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import trio
from bench.figures import MS, Figure, p99
from support.robot import Device, Robot, uid_of

from rt.protocol.message import DevDisable, Message

DEVICES = 16
STOPS = 10
"""The number of measured emergency stops, each of which ends a robot."""
SERVICE = "executor-service"
SPIN = "while True: pass"


class Stamped(Device):
    """A device that records when it was last disabled."""

    disabled_at = 0.0

    def _take(self, message: Message) -> None:
        if isinstance(message, DevDisable):
            self.disabled_at = time.perf_counter()
        super()._take(message)


def _setup(robot: Robot) -> list[Stamped]:
    devices = [Stamped("polar-bear", number) for number in range(1, DEVICES + 1)]
    names = [f'm{number} = "{uid_of("polar-bear", number)}"' for number in range(1, DEVICES + 1)]
    robot.write(
        "rt.toml",
        "\n".join(
            [
                'log_format = "json"',
                "teleop_needs_gamepad = false",
                "exec_cutoffs = 1000",
                "[dev_name]",
                *names,
            ]
        ),
    )
    robot.write(
        "studentcode.py",
        "def autonomous_main():\n"
        f"    for i in range(1, {DEVICES + 1}): Robot.write(f'm{{i}}', 'duty_cycle', 0.5)\n",
    )
    return devices


async def begin(robot: Robot, count: int) -> list[Figure]:
    """Measure from the call of a mode to the first DEV_WRITE of main."""
    from_idle, from_mode = [], []
    (device, *_) = _setup(robot)
    await robot.start()
    await robot.plug_tcp(device)
    await robot.connected(device)
    for run in range(count):
        await robot.logged("child is ready", child="executor", count=run + 1)
        await trio.sleep(0.3)
        since = len(device.messages)
        began = time.perf_counter()
        await robot.call("auto")
        await device.written(since=since, duty_cycle=0.5)
        from_idle.append((time.perf_counter() - began) * MS)
        await robot.logged("child is ready", child="standby", count=run + 1)
        await trio.sleep(0.3)
        since = len(device.messages)
        began = time.perf_counter()
        await robot.call("auto")
        await device.written(since=await device.disabled(since), duty_cycle=0.5)
        from_mode.append((time.perf_counter() - began) * MS)
        await robot.call("idle")
    await robot.stop()
    return [
        Figure(
            "auto, from the call to the first DEV_WRITE of main, median",
            statistics.median(from_idle),
            "ms",
            50,
            count,
        ),
        Figure("the same from another mode, median", statistics.median(from_mode), "ms", 50, count),
    ]


async def stop(robot: Robot, count: int) -> list[Figure]:
    """Measure from idle or estop to the last DEV_DISABLE on the wire, with busy cores."""
    devices = _setup(robot)
    idle: list[float] = []
    estop: list[float] = []
    with _busy():
        await robot.start()
        for device in devices:
            await robot.plug_tcp(device)
        await robot.connected(*devices)
        idle += [await _stop(robot, devices, "idle") for _ in range(count)]
        await robot.stop()
        for _ in range(STOPS):
            await robot.start()
            await robot.connected(*devices)  # they reconnect
            estop.append(await _stop(robot, devices, "estop"))
            await robot.wait()
    return [
        Figure(
            "idle to the last DEV_DISABLE of 16, both cores busy, median",
            statistics.median(idle),
            "ms",
            5,
            count,
        ),
        Figure(
            "idle to the last DEV_DISABLE of 16, both cores busy, p99", p99(idle), "ms", 20, count
        ),
        Figure(
            "estop to the last DEV_DISABLE of 16, both cores busy, median",
            statistics.median(estop),
            "ms",
            5,
            STOPS,
        ),
        Figure(
            "estop to the last DEV_DISABLE of 16, both cores busy, worst",
            max(estop),
            "ms",
            20,
            STOPS,
        ),
    ]


async def _stop(robot: Robot, devices: list[Stamped], method: str) -> float:
    """Drive all devices, stop them, and return the time (ms) until the last DEV_DISABLE."""
    async with robot.client() as client:
        since = [len(device.messages) for device in devices]
        await client.issue_call("auto", address=SERVICE)
        since = [
            await device.written(position, duty_cycle=0.5)
            for device, position in zip(devices, since, strict=True)
        ]
        began = time.perf_counter()
        await client.issue_call(method, address=SERVICE)
        for device, position in zip(devices, since, strict=True):
            await device.disabled(position)
    return (max(device.disabled_at for device in devices) - began) * MS


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Keep both cores busy, without a delay for this process, which would add to the result."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    # In sessions of their own, because the kernel shares the processor between sessions first.
    spinners = [
        subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True) for _ in range(2)
    ]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
