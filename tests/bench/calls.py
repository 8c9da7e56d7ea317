"""Benchmarks of calls through the router, and of gamepads from the station to shared memory.

Calls follow one another immediately, and datagrams every ms: after longer pauses, results would
include the wake-up of cores, which takes 0.1 to 0.3 ms per process on virtual machines.
"""

import contextlib
import socket
import statistics
import time

import trio
import zmq
from bench.figures import MS, Figure, p99
from support.robot import CATALOG, Robot

from rt.buffer import BufferStore
from rt.errors import DeviceBufferError, RemoteCallError
from rt.protocol import datagrams
from rt.protocol.datagrams import GamepadState
from rt.remote import Client, SocketNode

IN_FLIGHT = 64
WARM_UP = 200
SERVICE = "executor-service"
METHOD = "mode"
"""A method that does nothing, in another process, to measure only the round trip."""


def caller(robot: Robot, *, tcp: bool = False) -> Client:
    """Return a client over the socket of local clients, or over TCP like the driver's station."""
    address = (
        f"tcp://127.0.0.1:{robot.port_base}"
        if tcp
        else f"ipc://{robot.instance.directory}/router-frontend.sock"
    )
    node = SocketNode(zmq.DEALER, "bench-client", connections=[address])
    return Client(node, address=SERVICE, timeout=20)


async def one_at_a_time(robot: Robot, count: int) -> list[Figure]:
    """Measure sequential calls from this process through the root's router to the executor."""
    await robot.start()
    times = await _times(caller(robot), count)
    over_tcp = await _times(caller(robot, tcp=True), count)
    return [
        Figure("a call through the router, median", statistics.median(times), "ms", 0.5, count),
        Figure("a call through the router, p99", p99(times), "ms", 1.5, count),
        Figure("the same over TCP, median", statistics.median(over_tcp), "ms", None, count),
    ]


async def _times(client: Client, count: int) -> list[float]:
    times = []
    async with client:
        for _ in range(WARM_UP):
            await client.issue_call(METHOD)
        for _ in range(count):
            began = time.perf_counter()
            await client.issue_call(METHOD)
            times.append((time.perf_counter() - began) * MS)
    return times


async def stop_in_a_flood(robot: Robot, count: int) -> list[Figure]:
    """Measure `disable` and `idle` while other callers send the largest allowed calls."""
    await robot.start()
    largest = ["left_motor"] * 128
    figures = []
    for what, crowd in {
        "alone": (),
        "next to 5 loops of the largest pings": (_loop,) * 5,
        "next to 5 floods of notifications": (_flood,) * 5,
    }.items():
        async with trio.open_nursery() as nursery, caller(robot) as client:
            for number, work in enumerate(crowd):
                nursery.start_soon(work, robot, f"crowd-{number}", largest)
            for method, service in (("disable", "device-service"), ("idle", "executor-service")):
                times = []
                for _ in range(count):
                    began = time.perf_counter()
                    await client.issue_call(method, address=service)
                    times.append((time.perf_counter() - began) * MS)
                    await trio.sleep(0.005)
                figures.append(Figure(f"{method} {what}, p99", p99(times), "ms", None, count))
                figures.append(Figure(f"{method} {what}, worst", max(times), "ms", None, count))
            nursery.cancel_scope.cancel()
    return figures


def _crowd(robot: Robot, name: str) -> Client:
    address = f"ipc://{robot.instance.directory}/router-frontend.sock"
    return Client(
        SocketNode(zmq.DEALER, name, connections=[address]), address="device-service", timeout=20
    )


async def _loop(robot: Robot, name: str, uids: list[str]) -> None:
    async with _crowd(robot, name) as client:
        while True:
            with contextlib.suppress(RemoteCallError):
                await client.issue_call("ping", uids)


async def _flood(robot: Robot, name: str, uids: list[str]) -> None:
    async with _crowd(robot, name) as client:
        while True:
            await client.issue_call("ping", uids, notification=True)


async def many_at_once(robot: Robot, count: int) -> list[Figure]:
    """Measure the rate of calls with 64 in flight; 5000/s are 200 us per call."""
    await robot.start()
    remaining = count

    async def keep_calling(client: Client) -> None:
        nonlocal remaining
        while remaining > 0:
            remaining -= 1
            await client.issue_call(METHOD)

    async with caller(robot) as client:
        for _ in range(WARM_UP):
            await client.issue_call(METHOD)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT):
                nursery.start_soon(keep_calling, client)
        spent = time.perf_counter() - began
    return [
        Figure(f"a call, {IN_FLIGHT} of them in flight", spent / count * 1e6, "us", 200.0, count)
    ]


async def gamepad_to_executor(robot: Robot, count: int) -> list[Figure]:
    """Measure from a datagram of the driver's station to the gamepad buffer in shared memory."""
    await robot.start()
    times = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        BufferStore(CATALOG, robot.shm_prefix()) as store,
    ):
        sender.connect(("127.0.0.1", robot.port_base + 2))
        sender.send(datagrams.encode_gamepads({0: GamepadState(0.0, 0.0, 0.0, 0.0, 0)}))
        await robot.logged("gamepad connected")
        # Without the lock: no real reader would take it continuously.
        values = store.get_or_open(("gamepad", 0), create=False)._updates
        for number in range(1, WARM_UP + count + 1):
            wanted = number / (WARM_UP + count) / 2
            datagram = datagrams.encode_gamepads({0: GamepadState(0.0, wanted, 0.0, 0.0, 0)})
            began = time.perf_counter()
            sender.send(datagram)
            while abs(values.joystick_left_y - wanted) > 1e-6:
                if time.perf_counter() - began > 5:
                    raise DeviceBufferError(f"the gamepad's update {number} never came")
            if number > WARM_UP:
                times.append((time.perf_counter() - began) * MS)
            await trio.sleep(0.001)
    return [
        Figure(
            "gamepad datagram -> shared memory, median", statistics.median(times), "ms", 0.4, count
        ),
        Figure("gamepad datagram -> shared memory, p99", p99(times), "ms", None, count),
    ]
