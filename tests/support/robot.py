"""Whole robots: `rt run` as a process, with devices that the test plays and a driver's station that it is.

A robot runs from source, or as the executable that RT_BINARY names; then in an empty environment,
without any Python on its PATH.
"""

import contextlib
import json
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
import zmq

from rt import catalog
from rt.buffer import BufferStore
from rt.client.device import LOCK_TIMEOUT
from rt.emulator.lines import EmulatedDevice, connect_emulated, serve_pty
from rt.instance import Instance
from rt.instance.stale_files import ENV_DIRECTORY
from rt.protocol import control
from rt.protocol.control import NEUTRAL, GamepadState
from rt.protocol.message import DevDisable, DevWrite, Message
from rt.protocol.uid import DeviceUID
from rt.remote import Client, DatagramNode, SocketNode
from rt.terminal import table

CATALOG = catalog.load()
BINARY = os.environ.get("RT_BINARY")
COMMAND = (str(Path(BINARY).resolve()),) if BINARY else (sys.executable, "-P", "-m", "rt")
PATIENCE = 40.0
"""Deadline (s) for anything that should happen soon: a loaded machine with two cores is slow, and no test measures speed."""


WAITING = "waiting for the sticks to be at rest"
"""The event of a robot that moves nothing until its driver lets go of the sticks."""

METHODS = {
    "broker-service": {
        "get_option",
        "set_option",
        "lint",
        "stations",
        "commander",
        "take_control",
        "release_control",
        "status",
    },
    "device-service": {
        "list_uids",
        "ping",
        "read",
        "subscribe",
        "unsubscribe",
        "heartbeat",
        "disable",
    },
    "executor-service": {"auto", "teleop", "idle", "mode", "estop", "execute"},
}
"""What tests call, by the service that has it."""


def uid_of(name: str, number: int = 1) -> int:
    device_id = CATALOG[name].device_id
    assert device_id is not None
    return int(DeviceUID(device_id, 7, number))


_reserved: list[socket.socket] = []


def free_ports(count: int = 5) -> int:
    """A base from which so many ports are free; below the range that the system gives away.

    No other process that runs tests is given the same while this one lives: the kernel keeps the
    name of a socket for each.
    """
    while True:
        base = 10000 + secrets.randbelow(4000) * count
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            reservation.bind(f"\0rt-tests/ports/{base}")
            for port in range(base, base + count):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            continue
        _reserved.append(reservation)
        return base


PROGRAM = """
def teleop_main():
    Robot.write("motor", "duty_cycle", Gamepad.get("joystick_left_y"))
"""
CONFIG = """
dev_ports = ["{folder}/tty*"]
log_format = "json"
teleop_needs_gamepad = false
exec_cutoffs = 1000
[dev_name]
motor = "{motor}"
switch = "{switch}"
"""


class Device:
    """A Smart Device that the test plays, and every message that it got."""

    def __init__(self, name: str, number: int = 1) -> None:
        self.uid = uid_of(name, number)
        self.messages: list[Message] = []
        self._news = trio.Event()
        self.emulated = EmulatedDevice(CATALOG[name], self.uid, on_message=self._take)

    def _take(self, message: Message) -> None:
        self.messages.append(message)
        self._news.set()
        self._news = trio.Event()

    async def until(self, matches: Callable[[Message], bool], since: int = 0) -> int:
        """Wait for a message; the number of those up to it."""
        position = since
        with trio.fail_after(PATIENCE):
            while True:
                for message in self.messages[position:]:
                    position += 1
                    if matches(message):
                        return position
                await self._news.wait()

    async def disabled(self, since: int = 0) -> int:
        return await self.until(lambda message: isinstance(message, DevDisable), since)

    async def written(self, since: int = 0, **values: float) -> int:
        """Wait for a DEV_WRITE that carries these values (and perhaps others)."""

        def matches(message: Message) -> bool:
            if not isinstance(message, DevWrite):
                return False
            carried = self.emulated.peripheral.unpack(message.params, message.data)
            return all(
                math.isclose(carried.get(name, math.nan), value, abs_tol=1e-6)
                for name, value in values.items()
            )

        return await self.until(matches, since)

    def writes(self, since: int = 0) -> int:
        return sum(isinstance(message, DevWrite) for message in self.messages[since:])


class Robot:
    """One `rt run`."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.name = f"t{secrets.token_hex(4)}"
        self.port_base = free_ports()
        self.nursery = nursery
        self.process: trio.Process | None = None
        self.log: list[dict[str, Any]] = []
        self.rests = 0
        self.errors = b""
        self._news = trio.Event()
        self.environment = {
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
        }
        self.environment |= {"XDG_STATE_HOME": str(folder / "state")}
        if not BINARY:
            self.environment |= {"PATH": os.environ["PATH"]}
        (folder / "run").mkdir(mode=0o700)
        (folder / "tmp").mkdir()
        (folder / "empty").mkdir()
        self.instance = Instance.locate(self.name, self.environment)
        self.write(
            "rt.toml",
            CONFIG.format(folder=folder, motor=uid_of("polar-bear"), switch=uid_of("limit-switch")),
        )
        self.write("studentcode.py", PROGRAM)

    def write(self, name: str, text: str) -> None:
        (self.folder / "empty" / name).write_text(text)

    def arguments(self, verb: str, *arguments: str) -> list[str]:
        return [*COMMAND, "--instance", self.name, verb, *arguments]

    async def start(self, *flags: str, verb: str = "run") -> None:
        """Start it and wait until it is ready."""
        self.log.clear()
        self.process = await trio.lowlevel.open_process(
            self.arguments(verb, "--port-base", str(self.port_base), *flags),
            cwd=self.folder / "empty",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.nursery.start_soon(self._read_log, self.process)
        self.nursery.start_soon(self._read_errors, self.process)
        await self.logged("robot ready")

    async def _read_log(self, process: trio.Process) -> None:
        rest = b""
        assert process.stdout is not None
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    self.log.append(json.loads(line))
                    self.rests += self.log[-1]["event"] == WAITING
            self._news.set()
            self._news = trio.Event()

    async def _read_errors(self, process: trio.Process) -> None:
        assert process.stderr is not None
        async for chunk in process.stderr:
            self.errors += chunk

    async def logged(self, event: str, count: int = 1, **context: Any) -> dict[str, Any]:
        """Wait until the log has had such events so many times; the last one."""
        with trio.move_on_after(PATIENCE):
            while True:
                found = [
                    entry
                    for entry in self.log
                    if event in entry["event"] and context.items() <= entry.items()
                ]
                if len(found) >= count:
                    return found[count - 1]
                await self._news.wait()
        lines = "\n".join(map(str, self.log))
        raise AssertionError(
            f"the robot never said {event!r} {context}:\n{lines}\n{self.errors.decode()}"
        )

    async def logged_one_of(self, *events: str) -> None:
        """Wait until the log has had one of several events."""
        with trio.fail_after(PATIENCE):
            while not any(event in entry["event"] for entry in self.log for event in events):
                await self._news.wait()

    async def command(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of rt beside the robot."""
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                self.arguments(verb, *arguments),
                cwd=self.folder / "empty",
                env=self.environment,
                stdin=b"",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method as any client does; `rt call` is a command, whose start takes a hundred times as long.

        Raises:
            RemoteCallError: What the service, or the router, said.
        """
        async with self.client() as client:
            service = next(name for name, methods in METHODS.items() if method in methods)
            return await client.issue_call(method, *arguments, address=service, timeout=PATIENCE)

    def client(self) -> Client:
        """A client of the robot's user, to be entered."""
        router = f"ipc://{self.instance.path('router-frontend.sock')}"
        return Client(SocketNode(zmq.DEALER, f"test-{secrets.token_hex(4)}", connections=[router]))

    def devices(self) -> dict[int, dict[str, Any]]:
        """What `rt devices --json` tells of each device, by UID."""
        with BufferStore(CATALOG, self.shm_prefix(), lock_timeout=LOCK_TIMEOUT) as store:
            return {int(row["uid"]): row for row in table.device_rows(store, {})}

    def shm_prefix(self) -> str:
        """What the names of its shared memory begin with, for this process, while the root lives."""
        for path in Path(f"/proc/{self.root()}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(path.readlink()).startswith("/memfd:rt-"):
                    return f"{path}/"
        raise AssertionError("the root has no shared memory")

    def child(self, name: str) -> int:
        """The process of a child that is ready."""
        ready = [
            entry
            for entry in self.log
            if entry["event"] == "child is ready" and entry["child"] == name
        ]
        return int(ready[-1]["pid"])

    def root(self) -> int:
        """The process that is the root: of the executable, which is two processes, the inner one."""
        holder = self.instance.holder()
        assert holder is not None
        return int(holder.pid)

    async def wait(self) -> int:
        assert self.process is not None
        with trio.fail_after(PATIENCE):
            code: int = await self.process.wait()
        return code

    async def stop(self, signum: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(signum)
        return await self.wait()

    def processes(self) -> list[int]:
        """The processes that belong to this robot, whatever their parents are."""
        mark = f"{ENV_DIRECTORY}={self.instance.directory}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def leftovers(self) -> list[str]:
        """Everything of the robot that is still there."""
        files = (
            [str(path) for path in self.instance.directory.glob("*")]
            if self.instance.directory.exists()
            else []
        )
        unpacked = [str(path) for path in (self.folder / "tmp").glob("*")]
        return [*files, *unpacked, *map(str, self.processes())]

    async def wait_exited(self, pid: int) -> None:
        """Wait until a process has ended."""
        with trio.fail_after(PATIENCE), contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                await trio.lowlevel.wait_readable(fd)
            finally:
                os.close(fd)

    async def wait_all_exited(self, *others: int) -> None:
        """Wait until no child of the robot is left, and none of the other processes."""
        with trio.fail_after(PATIENCE):
            for pid in [*others, *self.processes()]:
                await self.wait_exited(pid)

    async def plug_tcp(self, device: Device) -> trio.CancelScope:
        """Connect a device over TCP; cancel the scope to unplug it."""
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await connect_emulated(device.emulated, "127.0.0.1", self.port_base + 4)

        self.nursery.start_soon(run)
        await trio.lowlevel.checkpoint()
        return scope

    async def plug_pty(self, device: Device) -> trio.CancelScope:
        """Connect a device on a serial line that the robot's pattern of ports matches."""
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[Any]) -> None:
            with scope:
                await serve_pty(
                    device.emulated, self.folder / f"tty{device.uid}", task_status=task_status
                )

        await self.nursery.start(run)
        return scope

    async def connected(self, *devices: Device, since: int = 0) -> None:
        for device in devices:
            await self.logged("device connected", uid=str(device.uid), count=since + 1)

    async def drive(self, *states: GamepadState) -> None:
        """Be the driver's station: send states, again and again, until cancelled.

        As a driver does, it lets go of the sticks at first, and whenever the robot waits for them
        to be at rest.
        """
        node = DatagramNode.from_address(f"udp://127.0.0.1:{self.port_base + 2}", bind=False)
        async with node:
            answered = -1
            while True:
                for state in states:
                    resting, answered = answered != self.rests, self.rests
                    await node.send(
                        b"", control.encode_gamepads({0: NEUTRAL if resting else state})
                    )
                    await trio.sleep(0.02)

    def clean_up(self) -> None:
        """Remove everything of the robot, whatever state it is in."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self.folder.exists():
            with contextlib.suppress(
                FileNotFoundError
            ):  # a command that is killed removes what it has unpacked meanwhile
                shutil.rmtree(self.folder)


Plug = Callable[[Device], Awaitable[trio.CancelScope]]
