"""Whole robots: `rt run` as a process, with devices and a driver's station that the test emulates.

A robot runs from source, or as the executable in RT_BINARY, then in an environment without Python
on its PATH.
"""

import contextlib
import itertools
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
import zmq

from rt import catalog
from rt.buffer import BufferStore
from rt.client import device_table
from rt.client.device import LOCK_TIMEOUT
from rt.emulator.lines import EmulatedDevice, connect_emulated, serve_pty
from rt.instance import Instance
from rt.instance.stale_files import ENV_DIRECTORY
from rt.protocol.datagrams import GamepadState
from rt.protocol.message import DevDisable, DevWrite, Message
from rt.protocol.uid import DeviceUID
from rt.remote import Client, SocketNode
from rt.testing.gamepads import drive
from rt.testing.log import RobotLog
from rt.testing.start import reserved_ports

CATALOG = catalog.load()
BINARY = os.environ.get("RT_BINARY")
COMMAND = (str(Path(BINARY).resolve()),) if BINARY else (sys.executable, "-P", "-m", "rt")
PATIENCE = 40.0
"""Timeout (s) for anything that should happen soon. It is long because busy machines are slow."""

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
"""The methods that tests call, by service."""


def uid_of(name: str, number: int = 1) -> int:
    device_id = CATALOG[name].device_id
    assert device_id is not None
    return int(DeviceUID(device_id, 7, number))


_reserved = contextlib.ExitStack()


def free_ports() -> int:
    """Reserve the ports of a robot for this process, and return the first."""
    return _reserved.enter_context(reserved_ports())


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
    """An emulated Smart Device that records the messages it receives."""

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
        """Wait for a message, and return the number of messages up to it."""
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
        """Wait for a DEV_WRITE with these values, and possibly others."""

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


class Robot(RobotLog):
    """A robot: one `rt run`."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        super().__init__(PATIENCE)
        self.folder = folder
        self.name = f"t{secrets.token_hex(4)}"
        self.port_base = free_ports()
        self.nursery = nursery
        self.process: trio.Process | None = None
        self.errors = b""
        self.environment = {
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
        }
        self.environment |= {"XDG_STATE_HOME": str(folder / "state")}
        if not BINARY:
            # PYTHONPATH selects the copy of rt that is tested.
            names = {"PATH", "PYTHONPATH"} & os.environ.keys()
            self.environment |= {name: os.environ[name] for name in names}
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
        """Start the robot and wait until it is ready."""
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
                self.add_line(line)

    async def _read_errors(self, process: trio.Process) -> None:
        assert process.stderr is not None
        async for chunk in process.stderr:
            self.errors += chunk

    async def logged(self, event: str, count: int = 1, **context: Any) -> dict[str, Any]:
        """Wait until the log has ``count`` matching events, and return the last one."""
        try:
            return await super().logged(event, count, **context)
        except AssertionError as error:
            lines = "\n".join(map(str, self.log))
            raise AssertionError(f"{error}:\n{lines}\n{self.errors.decode()}") from None

    async def logged_one_of(self, *events: str) -> None:
        """Wait until the log has one of several events."""
        with trio.fail_after(PATIENCE):
            while not any(event in entry["event"] for entry in self.log for event in events):
                await self._changed.wait()

    async def command(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of rt and wait for its exit."""
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
        """Call a remote method; this is a hundred times as fast as `rt call`.

        Raises:
            RemoteCallError: The service or the router answered with an error.
        """
        async with self.client() as client:
            service = next(name for name, methods in METHODS.items() if method in methods)
            return await client.issue_call(method, *arguments, address=service, timeout=PATIENCE)

    def client(self) -> Client:
        """Return a client for use in ``async with``."""
        router = f"ipc://{self.instance.path('router-frontend.sock')}"
        return Client(SocketNode(zmq.DEALER, f"test-{secrets.token_hex(4)}", connections=[router]))

    def devices(self) -> dict[int, dict[str, Any]]:
        """Return the rows of `rt devices --json` by UID."""
        with BufferStore(CATALOG, self.shm_prefix(), lock_timeout=LOCK_TIMEOUT) as store:
            return {int(row["uid"]): row for row in device_table.device_rows(store, {})}

    def shm_prefix(self) -> str:
        """Return the prefix of the names of its shared memory, valid while the root runs."""
        for path in Path(f"/proc/{self.root()}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(path.readlink()).startswith("/memfd:rt-"):
                    return f"{path}/"
        raise AssertionError("the root has no shared memory")

    def child(self, name: str) -> int:
        """Return the pid of a child that is ready."""
        ready = [
            entry
            for entry in self.log
            if entry["event"] == "child is ready" and entry["child"] == name
        ]
        return int(ready[-1]["pid"])

    def root(self) -> int:
        """Return the pid of the root: of the executable, the inner process of two."""
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
        """Return the processes of this robot, regardless of their parents."""
        variable = f"{ENV_DIRECTORY}={self.instance.directory}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if variable in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def leftovers(self) -> list[str]:
        """Return the files and processes of the robot that remain."""
        files = (
            [str(path) for path in self.instance.directory.glob("*")]
            if self.instance.directory.exists()
            else []
        )
        unpacked = [str(path) for path in (self.folder / "tmp").glob("*")]
        return [*files, *unpacked, *map(str, self.processes())]

    async def wait_exited(self, pid: int) -> None:
        """Wait until a process has exited."""
        with trio.fail_after(PATIENCE), contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                await trio.lowlevel.wait_readable(fd)
            finally:
                os.close(fd)

    async def wait_all_exited(self, *others: int) -> None:
        """Wait until all processes of the robot and the given others have exited."""
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
        """Connect a device on an emulated serial line; cancel the scope to unplug it."""
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
        """Send the states of gamepads in turn, again and again, until cancelled."""
        turns = itertools.cycle(states)
        await drive(self, self.port_base + 2, lambda: {0: next(turns)})

    def clean_up(self) -> None:
        """Kill the processes of the robot and remove its files, whatever its state is."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self.folder.exists():
            # A command that is killed removes its unpacked files at the same time.
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.folder)


Plug = Callable[[Device], Awaitable[trio.CancelScope]]
