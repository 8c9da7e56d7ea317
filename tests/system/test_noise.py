"""Noise at the ports of a robot while a station drives and calls it.

NOISE_SECONDS is the duration, by default 5; `just soak` runs longer. `-s` prints the figures.
"""

import contextlib
import os
import random
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
import zmq
from support.robot import PATIENCE, Device, Robot
from support.strangers import GREETING, frames_of, introduce

from rt.protocol.datagrams import GamepadState
from rt.remote import Client, SocketNode

pytestmark = pytest.mark.system

SECONDS = float(os.environ.get("NOISE_SECONDS", "5"))
ENOUGH = 10 * SECONDS
GROWTH = 100
"""Memory (MiB) by which a process may grow after the first second of noise."""
SERVICES = (b"broker-service", b"device-service", b"executor-service")
HARMLESS = (
    "describe",
    "get_option",
    "list_uids",
    "mode",
    "nothing",
    "$cancel",
    "$gone",
    "update_gamepads",
)
"""Methods that noise calls; it does not call `estop`."""
BIG = 64 << 20


class Noise:
    """Everything that a stranger sends, by chance.

    Args:
        port_base: Of the robot.
        seed: Of the chance.
    """

    def __init__(self, port_base: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.sent: dict[str, int] = {}
        self._base = port_base
        self._context = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def run(self, stop: Callable[[], bool]) -> None:
        """Send until stopped; runs in a thread."""
        kinds = (
            self._zmq,
            self._zmq,
            self._zmq,
            self._tcp,
            self._tcp,
            self._datagrams,
            self._datagrams,
            self._identity,
        )
        try:
            while not stop():
                kind = self.chance.choice(kinds)
                kind()
                self.sent[kind.__name__] = self.sent.get(kind.__name__, 0) + 1
                if self.chance.random() < 0.002:
                    self._giant()
        finally:
            for each in self._sockets:
                each.close(0)
            self._context.destroy(0)

    def _bytes(self) -> bytes:
        chance = self.chance
        size = int(2 ** chance.uniform(0, 14))
        return chance.choice((chance.randbytes(size), b"\x91" * size, b"\xff" * size, bytes(size)))

    def _payload(self) -> bytes:
        chance = self.chance
        value = chance.choice(
            (None, [], {}, 5, "text", {"0": {"lx": 2.0}}, [[1, "a"]] * 50, {"x" * 50: 1})
        )
        method = chance.choice((*HARMLESS, "x" * chance.randrange(200), 5))
        wire = chance.choice(
            (
                [0, chance.randrange(1 << 33), method, [value] * chance.randrange(3)],
                [1, chance.randrange(9), chance.choice((None, ["e", {}], "e")), value],
                [2, method, [value]],
                value,
            )
        )
        raw = bytearray(msgspec.msgpack.encode(wire))
        if chance.random() < 0.3:
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        if chance.random() < 0.1:
            # A false length: a receiver that trusts it allocates 4 GiB.
            raw = bytearray(
                b"\x93\x02\xa1a" + chance.choice((b"\xdd", b"\xdf", b"\xdb", b"\xc6")) + b"\xff" * 4
            )
        return bytes(raw)

    def _dealer(self) -> zmq.Socket[bytes]:
        if len(self._sockets) < 20:
            made = self._context.socket(
                self.chance.choice((zmq.DEALER, zmq.DEALER, zmq.PUSH, zmq.REQ, zmq.ROUTER))
            )
            made.setsockopt(zmq.LINGER, 0)
            made.connect(f"tcp://127.0.0.1:{self._base}")
            self._sockets.append(made)
        elif self.chance.random() < 0.01:
            self._sockets.pop(self.chance.randrange(len(self._sockets))).close(0)
        return self.chance.choice(self._sockets)  # none of them ever reads: all are slow readers

    def _zmq(self) -> None:
        chance = self.chance
        recipient = chance.choice(
            (*SERVICES, b"", b"nobody", chance.randbytes(chance.randrange(1, 300)))
        )
        frames = [recipient, chance.choice((self._payload, self._payload, self._bytes))()]
        if chance.random() < 0.1:
            frames = [self._bytes() for _ in range(chance.randrange(1, 6))]
        with contextlib.suppress(zmq.ZMQError):
            self._dealer().send_multipart(frames, zmq.DONTWAIT)

    def _tcp(self) -> None:
        port = self._base + self.chance.choice(
            (0, 4)
        )  # the router, and where virtual devices connect
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 1) as stream,
        ):
            stream.settimeout(0.05)
            for _ in range(self.chance.randrange(4)):
                stream.sendall(self._bytes())

    def _datagrams(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(20):
                with contextlib.suppress(OSError):
                    payload = self.chance.choice((self._payload, self._bytes))()
                    sender.sendto(payload, ("127.0.0.1", self._base + 2))

    def _identity(self) -> None:
        """Connect a peer, announce its name, and disconnect."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._base), 1) as stream,
        ):
            stream.settimeout(1)
            stream.sendall(GREETING)
            introduce(
                stream,
                b"n" + self.chance.randbytes(20),
                frames_of(b"", b""),
                frames_of(b"nobody", b"\x90"),
            )

    def _giant(self) -> None:
        """Send a message of 64 MiB, as far as it is accepted."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._base), 1) as stream,
        ):
            stream.settimeout(1)
            stream.sendall(GREETING)
            introduce(stream, b"giant", struct.pack(">BQ", 0x02, BIG))
            for _ in range(BIG >> 16):
                stream.sendall(bytes(1 << 16))
        self.sent["_giant"] = self.sent.get("_giant", 0) + 1


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def test_noise_does_not_stop_the_robot(robot: Robot) -> None:
    await robot.start()
    motor = Device("polar-bear")
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    await robot.call("teleop")
    processes = {
        "root": robot.root(),
        "device": robot.child("device"),
        "executor": robot.child("executor"),
    }
    noise = Noise(robot.port_base, seed=7)
    stopped = False
    times: list[float] = []
    async with trio.open_nursery() as work:
        work.start_soon(robot.drive, GamepadState(0.0, 0.5, 0.0, 0.0, 0))
        await motor.written(duty_cycle=0.5)

        async def make_noise() -> None:
            await trio.to_thread.run_sync(noise.run, lambda: stopped)

        node = SocketNode(
            zmq.DEALER, "station-client", connections=[f"tcp://127.0.0.1:{robot.port_base}"]
        )
        async with Client(node, timeout=20) as station:
            work.start_soon(make_noise)
            began = time.monotonic()
            before: dict[str, float] = {}
            try:
                # On a busy machine it continues until enough noise was sent.
                while (
                    (passed := time.monotonic() - began) < SECONDS
                    or not before
                    or noise.sent.get("_zmq", 0) < ENOUGH
                ):
                    assert passed < SECONDS + PATIENCE, noise.sent
                    since = time.monotonic()
                    assert await station.call.list_uids(address="device-service") == [
                        str(motor.uid)
                    ]
                    assert await station.call.mode(address="executor-service") == "teleop"
                    assert (
                        await station.call.get_option("port_base", address="broker-service")
                        == robot.port_base
                    )
                    times.append((time.monotonic() - since) / 3)
                    if not before and passed > min(1.0, SECONDS / 4):
                        before = {name: resident(pid) for name, pid in processes.items()}
                    await trio.sleep(0.005)
            finally:
                stopped = True
            after = {name: resident(pid) for name, pid in processes.items()}
        work.cancel_scope.cancel()
    times.sort()
    print(f"\n{SECONDS:g} s of noise: {noise.sent}")  # noqa: T201
    print(  # noqa: T201
        f"{3 * len(times)} calls, median {times[len(times) // 2] * 1e3:.2f} ms, worst {times[-1] * 1e3:.1f} ms"
    )
    print("MiB:", {name: f"{before[name]:.0f} -> {after[name]:.0f}" for name in processes})  # noqa: T201
    ended = [entry for entry in robot.log if entry["event"] == "child is ready"]
    assert len({entry["child"] for entry in ended}) == len(ended), "a child was started again"
    assert {name: robot.child(name) for name in ("device", "executor")} == {
        "device": processes["device"],
        "executor": processes["executor"],
    }
    assert not [entry for entry in robot.log if entry.get("level") == "critical"]
    assert all(after[name] < before[name] + GROWTH for name in processes), (before, after)
