"""`just bench`: what a robot takes, measured on whole robots with emulated devices, as a table and as bench.json.

Every figure is a median, a p99 or the worst of several runs; measure on an otherwise idle machine. The figures of the executable
are measured on dist/rt if it is there.
"""

import json
import math
import os
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec
import trio

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))


from support.robot import KNOWN, Device, Robot, uid_of  # noqa: E402 - found by the line above

from rt.buffer import BufferStore  # noqa: E402
from rt.errors import DeviceBufferError  # noqa: E402
from rt.protocol import frames  # noqa: E402
from rt.protocol.control import GamepadState  # noqa: E402
from rt.protocol.message import DevData, DevWrite, Message  # noqa: E402
from rt.smartdevice.emulator import EmulatedDevice  # noqa: E402

MS = 1000.0


class Figure(msgspec.Struct):
    """One measured figure and the bar that it has to stay under, or None for what is only said."""

    name: str
    value: float
    unit: str
    bar: float | None
    runs: int

    @property
    def holds(self) -> bool:
        return self.bar is None or self.value <= self.bar


def p99(values: Sequence[float]) -> float:
    return sorted(values)[max(0, math.ceil(0.99 * len(values)) - 1)]


WRITER = """
import time

stamps = open({path!r}, "w", buffering=1)
count = 0


def teleop_main():
    global count
    count += 1
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    Robot.write("motor", "enc_pos", float(count))
    stamps.write(f"{{count}} {{now}}\\n")
"""


class HandDevice:
    """A motor on a TCP line that is played without an event loop, so that nothing but the robot is measured."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._reader = frames.FrameReader()
        self.device = EmulatedDevice(KNOWN["polar-bear"], uid_of("polar-bear"))
        self.line = socket.create_connection(("127.0.0.1", robot.port_base + 4))
        self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def connect(self) -> None:
        """Play it until the robot knows it."""
        while not any("the Smart Device is connected" in entry["event"] for entry in self._robot.log):
            self.play(0.05)
            await trio.sleep(0.05)
        self.play(0.5)

    def play(self, seconds: float, *, spin: bool = False) -> None:
        """Answer what comes for a while; subscriptions are not served, so that the line is idle."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.line], [], [], 0 if spin else left)[0]:
                for item in self._reader.feed(self.line.recv(4096)):
                    for reply in self.device.handle(item, 0.0):
                        self.line.sendall(frames.encode(reply))


async def write_to_wire(robot: Robot, count: int) -> list[Figure]:
    """`Robot.write` in the team's code to DEV_WRITE at an idle device."""
    path = robot.folder / "stamps"
    robot.write("studentcode.py", WRITER.format(path=str(path)))
    await robot.start()
    motor = HandDevice(robot)
    await motor.connect()
    await robot.call("teleop")
    arrived: dict[int, int] = {}

    def take(message: Message) -> None:
        if isinstance(message, DevWrite):
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            arrived[round(motor.device.peripheral.unpack(message.params, message.data)["enc_pos"])] = now

    motor.device = EmulatedDevice(KNOWN["polar-bear"], motor.device.uid, on_message=take)
    motor.play(count * 0.05, spin=True)
    motor.line.close()
    await robot.call("idle")
    await robot.stop()
    sent = {int(number): int(stamp) for number, stamp in map(str.split, path.read_text().splitlines())}
    path.unlink()
    latencies = [(arrived[number] - sent[number]) / 1e6 for number in arrived if number in sent]
    return [
        Figure("Robot.write to DEV_WRITE on the wire, median", statistics.median(latencies), "ms", 1.0, len(latencies)),
        Figure("Robot.write to DEV_WRITE on the wire, p99", p99(latencies), "ms", 5.0, len(latencies)),
    ]


async def _data_to_reader(robot: Robot, count: int, interval: float) -> list[float]:
    """DEV_DATA sent by a device until another process sees the value (ms). This process is the device and the reader."""
    await robot.start()
    motor = HandDevice(robot)
    await motor.connect()
    latencies = []
    with BufferStore(KNOWN, robot.instance.shm_prefix, lock_timeout=0.01) as store:
        buffer = store.get_or_open(uid_of("polar-bear"), create=False)
        values = buffer._updates
        for number in range(1, count + 1):
            frame = frames.encode(DevData(*motor.device.peripheral.pack({"enc_pos": float(number)})))
            began = time.perf_counter()
            motor.line.sendall(frame)
            # Looked at without the lock: a reader that takes it all the time is no reader that a robot has.
            while values.enc_pos != number:
                if time.perf_counter() - began > 5:
                    raise DeviceBufferError(f"the value {number} never came: {buffer.counters}")
            latencies.append((time.perf_counter() - began) * MS)
            assert buffer.get("enc_pos") == number
            motor.play(interval)
    motor.line.close()
    await robot.stop()
    return latencies


def _floor(count: int) -> float:
    """Measured in a process of its own: a fork of this one would find itself inside an event loop."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("floor.py")), str(count)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


async def data_to_reader(robot: Robot, count: int) -> list[Figure]:
    """The same for frames that follow one another closely, and at the rate at which one device reports."""
    busy = await _data_to_reader(robot, count, 0.001)
    alone = statistics.median(await _data_to_reader(robot, count // 4, 0.04))
    floor = await trio.to_thread.run_sync(_floor, count // 4)
    return [
        Figure(
            "DEV_DATA to visible in another process, one each ms, median", statistics.median(busy), "ms", 0.3, count
        ),
        Figure("the same, one each 40 ms, as a multiple of this machine's floor", alone / floor, "", 2, count // 4),
        Figure("the floor: a bare trio process wakes after 40 ms of silence, median", floor, "ms", None, count // 4),
    ]


async def kill_executor(robot: Robot, count: int) -> list[Figure]:
    """kill -9 of the executor while it drives, until every device has been told to stop, and until it is ready again."""
    devices = [Device("polar-bear", number) for number in range(1, 5)]
    await robot.start()
    for device in devices:
        await robot.plug_tcp(device)
    await robot.connected(*devices)
    disabled, ready = [], []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.drive, GamepadState(0.0, 0.5, 0.0, 0.0, 0))
        for run in range(count):
            await robot.call("teleop")
            since = [len(device.messages) for device in devices]
            await devices[0].written(duty_cycle=0.5, since=since[0])
            await trio.sleep(2.2)  # a child that is healthy for so long is started again at once
            since = [len(device.messages) for device in devices]
            began = time.perf_counter()
            os.kill(robot.child("executor"), signal.SIGKILL)
            for device, position in zip(devices, since, strict=True):
                await device.disabled(position)
            disabled.append((time.perf_counter() - began) * MS)
            await robot.said("child is ready", child="executor", count=run + 2)
            ready.append(time.perf_counter() - began)
        nursery.cancel_scope.cancel()
    await robot.stop()
    return [
        Figure(
            "kill -9 of the executor to DEV_DISABLE at every device, median",
            statistics.median(disabled),
            "ms",
            100,
            count,
        ),
        Figure("kill -9 of the executor to DEV_DISABLE at every device, worst", max(disabled), "ms", 100, count),
        Figure("kill -9 of the executor to ready again, worst", max(ready), "s", 2, count),
    ]


async def kill_device_process(robot: Robot, count: int) -> list[Figure]:
    """kill -9 of the device process until it is ready and has found all devices again."""
    devices = [Device("polar-bear", number) for number in range(1, 5)]
    await robot.start()
    for device in devices:
        await robot.plug_tcp(device)
    await robot.connected(*devices)
    times = []
    for run in range(count):
        await trio.sleep(2.2)
        began = time.perf_counter()
        os.kill(robot.child("device"), signal.SIGKILL)
        await robot.said("child is ready", child="device", count=run + 2)
        await robot.connected(*devices, since=run + 1)
        times.append(time.perf_counter() - began)
    await robot.stop()
    return [Figure("kill -9 of the device process to all devices found again, worst", max(times), "s", 2, count)]


async def start_and_stop(robot: Robot, count: int) -> list[Figure]:
    """Start until ready, SIGTERM until the exit, and kill -9 of the root until no process is left."""
    starts, stops, gone = [], [], []
    for _ in range(count):
        began = time.perf_counter()
        await robot.start()
        starts.append(time.perf_counter() - began)
        began = time.perf_counter()
        await robot.stop()
        stops.append(time.perf_counter() - began)
    for _ in range(count):
        await robot.start()
        began = time.perf_counter()
        os.kill(robot.root(), signal.SIGKILL)
        await robot.until_gone()
        gone.append(time.perf_counter() - began)
        await robot.wait()
    await robot.start()
    await robot.stop()
    return [
        Figure("rt run until all children are ready, median", statistics.median(starts), "s", 1.5, count),
        Figure("SIGTERM to exit, worst", max(stops), "s", 3, count),
        Figure("kill -9 of the root until no process is left, worst", max(gone), "s", 2, count),
    ]


def executable(path: Path, count: int) -> list[Figure]:
    """The executable's size and start."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        subprocess.run([path, "--version"], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return [
        Figure("dist/rt --version, median", statistics.median(times), "s", 0.4, count),
        Figure("dist/rt, size", path.stat().st_size / 1e6, "MB", 30, 1),
    ]


Measure = Callable[[Robot, int], object]
MEASURES: dict[str, tuple[Measure, int]] = {
    "write": (write_to_wire, 400),
    "data": (data_to_reader, 500),
    "start": (start_and_stop, 7),
    "executor": (kill_executor, 20),
    "device": (kill_device_process, 7),
}


async def measure_one(name: str) -> list[Figure]:
    """Run one measurement on a robot of its own."""
    function, count = MEASURES[name]
    folder = Path(tempfile.mkdtemp(prefix="rt-"))
    figures: list[Figure] = []
    async with trio.open_nursery() as nursery:
        robot = Robot(folder, nursery)
        try:
            figures = await function(robot, count)  # type: ignore[misc]  # every measure is an async function
        finally:
            robot.sweep()
        nursery.cancel_scope.cancel()
    return figures


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*MEASURES, "executable"]))
def main(names: tuple[str, ...]) -> None:
    """Measure what is named, or everything."""
    from rich.console import Console
    from rich.table import Table

    figures: list[Figure] = []
    for name in names or (*MEASURES, "executable"):
        click.echo(f"measuring: {name}", err=True)
        if name != "executable":
            figures += trio.run(measure_one, name)
        elif (path := ROOT / "dist" / "rt").exists():
            figures += executable(path, 15)
    table = Table("figure", "value", "bar", "runs", "")
    for figure in figures:
        mark = "[green]holds[/green]" if figure.holds else "[red]misses[/red]"
        table.add_row(
            figure.name,
            f"{figure.value:.3g} {figure.unit}",
            "" if figure.bar is None else f"{figure.bar:g}",
            str(figure.runs),
            mark,
        )
    Console(width=shutil.get_terminal_size((120, 24)).columns).print(table)
    (ROOT / "bench.json").write_text(json.dumps([msgspec.to_builtins(figure) for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
