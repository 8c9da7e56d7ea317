"""Each fault on all devices of a driving robot, which recovers completely.

FAULT_SECONDS is the duration of each fault, FAULT_SEED its random seed. `just soak` runs this for
longer and prints the figures.
"""

import contextlib
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from support.robot import CATALOG, PATIENCE, Robot, uid_of

from rt.buffer import BufferStore, DeviceBuffer, segment

pytestmark = pytest.mark.system

SECONDS = float(os.environ.get("FAULT_SECONDS", "4"))
SEED = os.environ.get("FAULT_SEED", "1")
RECOVERY = 60.0
MOTORS, SENSORS = 8, 4
DEVICES = (f"polar-bear@1..{MOTORS}", f"potentiometer@1..{SENSORS}", f"limit-switch@1..{SENSORS}")
LOOK_INTERVAL = 0.05
CUTOFF = "every device (is|was) disabled|held the buffer.s lock"
FREEZE_CYCLE = 5.0
STARVED = 0.5
"""If the observer, which runs every 50 ms, waited longer (s), the machine also delayed devices."""
LONGEST_CYCLE = 24.0
"""Time (s) within which a line is back: ports that failed often are retried less often."""
PROGRAM = Path(__file__).parents[1] / "programs" / "drives_eight.py"
CONFIG = """
dev_ports = ["{folder}/ports/*"]
log_format = "json"
log_level = "debug"
health_check_interval = 0.2
teleop_needs_gamepad = false
exec_cutoffs = 1000
[dev_name]
{names}
"""


def plain_uid(name: str, number: int) -> int:
    """Return the UID of NAME@N."""
    return uid_of(name) >> 72 << 72 | number


UIDS = [
    *(plain_uid("polar-bear", number) for number in range(1, MOTORS + 1)),
    *(
        plain_uid(name, number)
        for name in ("potentiometer", "limit-switch")
        for number in range(1, SENSORS + 1)
    ),
]


class Watch:
    """Observes the devices in the shared memory of a robot."""

    def __init__(self, robot: Robot, store: BufferStore) -> None:
        self._robot = robot
        self.buffers: list[DeviceBuffer] = [store.get_or_open(uid) for uid in UIDS]
        self.looks = 0
        self.valid_looks = dict.fromkeys(UIDS, 0)
        self.lapses = 0
        self.outages: list[float] = []
        self.moved = False
        self.longest_pause = 0.0

    def total(self, counter: str) -> int:
        return sum(getattr(buffer.counters, counter) for buffer in self.buffers)

    async def all_live(self, within: float) -> float:
        """Wait until every device is valid and updating; return the time (s)."""
        started = trio.current_time()
        with trio.move_on_after(within):
            for buffer in self.buffers:
                # Two updates, because the first may be the answer to a read.
                seen, updates, connects = 0.0, 0, -1
                while not (buffer.valid and updates > 2):
                    if buffer.counters.connects != connects:
                        connects, updates = buffer.counters.connects, 0
                    if buffer.last_update != seen:
                        seen, updates = buffer.last_update, updates + 1
                    await trio.sleep(0.01)
            return trio.current_time() - started
        dead = [buffer.uid for buffer in self.buffers if not buffer.valid]
        log = "\n".join(map(str, self._robot.log[-40:]))
        raise AssertionError(
            f"after {within:g} s not all devices are valid and updating, invalid: {dead}\n{log}"
        )

    async def look(self) -> None:
        """Observe until cancelled."""
        was_valid = {int(buffer.uid): buffer.valid for buffer in self.buffers}
        lapsed: dict[int, float] = {}
        last = trio.current_time()
        while True:
            self.looks += 1
            self.longest_pause = max(self.longest_pause, trio.current_time() - last)
            last = trio.current_time()
            for uid, buffer in zip(UIDS, self.buffers, strict=True):
                valid = buffer.valid
                self.valid_looks[uid] += valid
                if was_valid[uid] and not valid:
                    self.lapses += 1
                    lapsed[uid] = trio.current_time()
                elif valid and uid in lapsed:
                    self.outages.append(trio.current_time() - lapsed.pop(uid))
                was_valid[uid] = valid
            with contextlib.suppress(Exception):
                self.moved = self.moved or abs(self.buffers[0].get("duty_cycle")) > 0.1
            await trio.sleep(LOOK_INTERVAL)

    @property
    def availability(self) -> float:
        return sum(self.valid_looks.values()) / max(self.looks * len(UIDS), 1)

    def resources(self) -> tuple[int, int, int]:
        """Return the descriptors and tasks of the device process, and the robot's segments."""
        fds = len(list(Path(f"/proc/{self._robot.child('device')}/fd").iterdir()))
        health = [
            entry
            for entry in self._robot.log
            if entry["event"] == "health" and entry["process"] == "device"
        ]
        segments = len(list(segment.names(self._robot.shm_prefix())))
        return fds, health[-1]["tasks"], segments


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition of the shared memory, which does not wake the test."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(LOOK_INTERVAL)


@contextlib.contextmanager
def watching(robot: Robot) -> Iterator[Watch]:
    with BufferStore(CATALOG, robot.shm_prefix()) as store:
        yield Watch(robot, store)


@contextlib.asynccontextmanager
async def emulated(robot: Robot, line: str, *flags: str) -> AsyncIterator[None]:
    """Emulate all devices in a separate process."""
    where = ["--pty-dir", str(robot.folder / "ports")] if line == "pty" else []
    process = await trio.lowlevel.open_process(
        robot.arguments(
            "emulate-dev",
            "--port-base",
            str(robot.port_base),
            "--wave",
            "--seed",
            SEED,
            *where,
            *flags,
            *DEVICES,
        ),
        env=robot.environment,
        cwd=robot.folder / "empty",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        assert process.returncode is None
    finally:
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE, shield=True):
            code = await process.wait()
    assert code == 0
    if line == "pty":
        assert list((robot.folder / "ports").iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("drop", "tcp"),
        ("delay", "tcp"),
        ("corrupt", "pty"),
        ("disconnect", "tcp"),
        ("disconnect", "pty"),
        ("freeze=2", "tcp"),
    ],
)
async def test_robot_outlives_faults_of_all_devices(robot: Robot, fault: str, line: str) -> None:
    kind = fault.partition("=")[0]
    names = "\n".join(
        f'm{number} = "{plain_uid("polar-bear", number)}"' for number in range(1, MOTORS + 1)
    )
    robot.write("rt.toml", CONFIG.format(folder=robot.folder, names=names))
    robot.write("studentcode.py", PROGRAM.read_text())
    await robot.start()
    with watching(robot) as watch:
        async with emulated(robot, line):
            await watch.all_live(PATIENCE)
            await robot.call("teleop")
            await robot.logged("health", process="device", count=health_count(robot) + 2)
            before = watch.resources()
        writes, bad, connects = map(watch.total, ("writes_sent", "bad_frames", "connects"))
        async with emulated(robot, line, "--fault", fault):
            if kind in {"drop", "delay", "corrupt"}:
                await watch.all_live(PATIENCE)
            else:
                await until(lambda: watch.total("connects") > connects)
            watch.moved = False
            started, frames = time.monotonic(), watch.total("frames_received")
            async with trio.open_nursery() as looking:
                looking.start_soon(watch.look)
                await trio.sleep(SECONDS + (FREEZE_CYCLE if kind == "freeze" else 0))
                # A busy machine needs more time.
                await until(lambda: watch.moved and all(watch.valid_looks.values()))
                if kind in {"disconnect", "freeze"}:
                    await until(
                        lambda: watch.outages and watch.lapses > len(UIDS) * SECONDS / LONGEST_CYCLE
                    )
                looking.cancel_scope.cancel()
            seconds, frames = time.monotonic() - started, watch.total("frames_received") - frames
        bad, connects = watch.total("bad_frames") - bad, watch.total("connects") - connects
        async with emulated(robot, line):
            recovery = await watch.all_live(RECOVERY)
            assert await robot.call("mode") == "teleop", robot.log[-30:]
            await settled(robot, watch, before)
        writes = watch.total("writes_sent") - writes
    outages = watch.outages or [0.0]
    click.echo(
        f"\nfault matrix: {fault} over {line}, {len(UIDS)} devices, {seconds:.0f} s, seed {SEED}: {frames} frames received, {bad} bad, "
        f"{frames / seconds / len(UIDS):.1f} frames/s a device, {connects} connects, {watch.lapses} lapses, "
        f"back after {statistics.median(outages):.1f} s (median) to {max(outages):.1f} s, "
        f"valid {watch.availability:.1%} of the time, sound again in {recovery:.1f} s; fds, tasks, segments {before}"
    )

    assert writes > MOTORS
    assert bad > 0 if kind == "corrupt" else bad == 0
    if kind in {"drop", "delay", "corrupt"} and watch.longest_pause < STARVED:
        assert watch.lapses == 0
        assert watch.availability == 1.0
    if kind == "disconnect":
        assert connects > len(UIDS) * (1 + SECONDS / LONGEST_CYCLE)
    unhurt(robot)
    assert await robot.stop() == 0
    unhurt(robot)


def health_count(robot: Robot) -> int:
    return sum(entry["event"] == "health" and entry["process"] == "device" for entry in robot.log)


async def settled(robot: Robot, watch: Watch, before: tuple[int, int, int]) -> None:
    """Wait until no more descriptors, tasks and segments exist than before."""
    with trio.move_on_after(RECOVERY):
        while True:
            await robot.logged("health", process="device", count=health_count(robot) + 2)
            if all(now <= then for now, then in zip(watch.resources(), before, strict=True)):
                return
    raise AssertionError(
        f"file descriptors, tasks, segments: {watch.resources()}, before the fault {before}"
    )


def unhurt(robot: Robot) -> None:
    """Check that no process of the robot ended, restarted or logged an error."""
    ready = [entry["child"] for entry in robot.log if entry["event"] == "child is ready"]
    assert sorted(ready) == ["brake", "device", "executor", "standby"]
    # On a busy machine a process may wait until the devices are disabled; the mode continues.
    errors = [
        entry
        for entry in robot.log
        if entry["level"] in {"error", "critical"} and not re.search(CUTOFF, entry["event"])
    ]
    assert errors == []
    said = "\n".join(map(str, robot.log)) + robot.errors.decode()
    assert "Traceback" not in said
    assert "internal error" not in said
