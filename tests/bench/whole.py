"""Benchmarks of whole robots: latencies, crashes, start and stop, and the executable."""

import os
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

import trio
from bench.figures import MS, Figure, p99
from support.robot import CATALOG, Device, Robot, uid_of

from rt.buffer import BufferStore
from rt.emulator.lines import EmulatedDevice
from rt.errors import DeviceBufferError
from rt.protocol import frames
from rt.protocol.datagrams import GamepadState
from rt.protocol.message import DevData, DevWrite, Message

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


_SO_TIMESTAMPNS = 35


class HandDevice:
    """A motor on a TCP line without an event loop, so that only the robot is measured."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._reader = frames.FrameReader()
        self.device = EmulatedDevice(CATALOG["polar-bear"], uid_of("polar-bear"))
        self.line = socket.create_connection(("127.0.0.1", robot.port_base + 4))
        self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.line.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.arrived = 0
        """When the last bytes arrived: the stamp of the kernel, on the monotonic clock (ns)."""

    async def connect(self) -> None:
        """Emulate the motor until the robot has connected it."""
        await self.meanwhile(self._robot.logged("device connected", uid=str(self.device.uid)))
        self.play(0.5)

    async def meanwhile(self, doing: Awaitable[object]) -> None:
        """Emulate the motor while awaiting something: without answers for 2 s it would be lost."""

        async def play_on() -> None:
            while True:
                self.play(0)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play_on)
            await doing
            nursery.cancel_scope.cancel()

    def play(self, seconds: float) -> None:
        """Answer messages for some time (s); subscriptions are ignored, so the line is idle."""
        end = time.monotonic() + seconds
        while True:
            left = max(0.0, end - time.monotonic())
            if select.select([self.line], [], [], left)[0]:
                data, stamps, *_ = self.line.recvmsg(4096, socket.CMSG_SPACE(16))
                for _, _, stamp in stamps:
                    seconds, nanoseconds = struct.unpack("qq", stamp)
                    self.arrived = (
                        seconds * 1_000_000_000 + nanoseconds - time.time_ns() + time.monotonic_ns()
                    )
                for item in self._reader.feed(data):
                    for reply in self.device.handle(item, 0.0):
                        self.line.sendall(frames.encode(reply))
            if not left:
                return


async def writes(robot: Robot, count: int) -> list[float]:
    """Return times (ms) from `Robot.write` to DEV_WRITE at an idle device of a running robot."""
    path = robot.folder / "stamps"
    motor = HandDevice(robot)
    await motor.connect()
    await motor.meanwhile(robot.call("teleop"))
    arrived: dict[int, int] = {}

    def take(message: Message) -> None:
        if isinstance(message, DevWrite):
            number = round(motor.device.peripheral.unpack(message.params, message.data)["enc_pos"])
            arrived[number] = motor.arrived

    motor.device = EmulatedDevice(CATALOG["polar-bear"], motor.device.uid, on_message=take)
    motor.play(count * 0.05)
    await motor.meanwhile(robot.call("idle"))
    motor.line.close()
    sent = {
        int(number): int(stamp) for number, stamp in map(str.split, path.read_text().splitlines())
    }
    path.unlink()
    return [(arrived[number] - sent[number]) / 1e6 for number in arrived if number in sent]


def write_program(robot: Robot) -> None:
    """Write the program of the robot, before it starts."""
    robot.write("studentcode.py", WRITER.format(path=str(robot.folder / "stamps")))


async def write_to_wire(robot: Robot, count: int) -> list[Figure]:
    """Measure `Robot.write` to the wire in an otherwise idle robot."""
    write_program(robot)
    await robot.start()
    latencies = await writes(robot, count)
    await robot.stop()
    name = "Robot.write to DEV_WRITE on the wire"
    return [
        Figure(f"{name}, median", statistics.median(latencies), "ms", 0.5, len(latencies)),
        Figure(f"{name}, p99", p99(latencies), "ms", 2.0, len(latencies)),
    ]


async def _data_to_reader(robot: Robot, count: int, interval: float) -> list[float]:
    """Return times (ms) from DEV_DATA of a device to its value in this process."""
    await robot.start()
    motor = HandDevice(robot)
    await motor.connect()
    latencies = []
    rest = {
        param.name: param.default
        for param in motor.device.peripheral.params
        if param.readable and param.subscribed
    }
    with BufferStore(CATALOG, robot.shm_prefix(), lock_timeout=0.01) as store:
        buffer = store.get_or_open(uid_of("polar-bear"), create=False)
        values = buffer._updates
        for number in range(1, count + 1):
            # All subscribed values: a device that reports only some of them counts as silent.
            values_sent = rest | {"enc_pos": float(number)}
            frame = frames.encode(DevData(*motor.device.peripheral.pack(values_sent)))
            began = time.perf_counter()
            motor.line.sendall(frame)
            # Without the lock: no real reader would take it continuously.
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
    """Measure the floor in a new process: a fork of this one would be in an event loop."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("floor.py")), str(count)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


async def data_to_reader(robot: Robot, count: int) -> list[Figure]:
    """Measure DEV_DATA to a reader, for frames each ms and at the rate of one device."""
    busy = await _data_to_reader(robot, count, 0.001)
    alone = statistics.median(await _data_to_reader(robot, count // 4, 0.04))
    floor = await trio.to_thread.run_sync(_floor, count // 4)
    return [
        Figure(
            "DEV_DATA to visible in another process, one each ms, median",
            statistics.median(busy),
            "ms",
            0.3,
            count,
        ),
        Figure(
            "the same, one each 40 ms, as a multiple of this machine's floor",
            alone / floor,
            "",
            2,
            count // 4,
        ),
        Figure(
            "the floor: a bare trio process wakes after 40 ms of silence, median",
            floor,
            "ms",
            None,
            count // 4,
        ),
    ]


async def kill_executor(robot: Robot, count: int) -> list[Figure]:
    """Measure from kill -9 of a driving executor to DEV_DISABLE, and until it is ready again."""
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
            await trio.sleep(2.2)  # resets the backoff of the child
            since = [len(device.messages) for device in devices]
            began = time.perf_counter()
            os.kill(robot.child("executor"), signal.SIGKILL)
            for device, position in zip(devices, since, strict=True):
                await device.disabled(position)
            disabled.append((time.perf_counter() - began) * MS)
            await robot.logged("child is ready", child="executor", count=run + 2)
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
        Figure(
            "kill -9 of the executor to DEV_DISABLE at every device, worst",
            max(disabled),
            "ms",
            100,
            count,
        ),
        Figure("kill -9 of the executor to ready again, worst", max(ready), "s", 2, count),
    ]


async def kill_device_process(robot: Robot, count: int) -> list[Figure]:
    """Measure from kill -9 of the device process until it has found all devices again."""
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
        await robot.logged("child is ready", child="device", count=run + 2)
        await robot.connected(*devices, since=run + 1)
        times.append(time.perf_counter() - began)
    await robot.stop()
    return [
        Figure(
            "kill -9 of the device process to all devices found again, worst",
            max(times),
            "s",
            2,
            count,
        )
    ]


async def start_and_stop(robot: Robot, count: int) -> list[Figure]:
    """Measure start to ready, SIGTERM to exit, and kill -9 of the root to no process left."""
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
        await robot.wait_all_exited()
        gone.append(time.perf_counter() - began)
        await robot.wait()
    await robot.start()
    await robot.stop()
    return [
        Figure(
            "rt run until all children are ready, median",
            statistics.median(starts),
            "s",
            1.5,
            count,
        ),
        Figure("SIGTERM to exit, worst", max(stops), "s", 3, count),
        Figure("kill -9 of the root until no process is left, worst", max(gone), "s", 2, count),
    ]


def executable(path: Path, count: int) -> list[Figure]:
    """Measure the size and start of the executable."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        subprocess.run([path, "--version"], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return [
        Figure("dist/rt --version, median", statistics.median(times), "s", 0.4, count),
        Figure("dist/rt, size", path.stat().st_size / 1e6, "MB", 30, 1),
    ]
