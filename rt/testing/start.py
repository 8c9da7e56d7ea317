"""Starts an emulated robot: `rt run` as a process in a temporary directory, on free ports.

Invariant: when `open_robot` ends, the robot's processes have exited and its files are removed. The
kernel kills the robot when the process of the tests dies.
"""

import contextlib
import functools
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from rt import catalog
from rt.catalog import Catalog
from rt.client.connection import open_remote
from rt.client.target import RemoteTarget
from rt.config import FILE_NAME, Config
from rt.config.team_code import locate
from rt.emulator.lines import EmulatedDevice
from rt.emulator.simulation import SimState
from rt.emulator.uid_spec import parse_uid_spec
from rt.errors import leaves
from rt.instance import Instance
from rt.instance.stale_files import end_processes
from rt.process.command import CommandProcess
from rt.root.lifecycle import are_free
from rt.testing.device import Device
from rt.testing.gamepads import drive
from rt.testing.robot import Robot

_STOP_TIMEOUT = 10.0
_PORTS = range(10_000, 30_000, 10)
"""Where to look for free ports: below those that the system gives to clients."""
_NO_HARDWARE: Mapping[str, Any] = {"dev_ports": [], "dev_usb_ids": [], "log_file": ""}


class StartRobot:
    """The fixture `start_robot`.

    Args:
        nursery: Runs the robots.
        directory: The directory of the test file.
    """

    def __init__(self, nursery: trio.Nursery, directory: Path) -> None:
        self._nursery = nursery
        self._directory = directory

    async def __call__(
        self,
        devices: Mapping[str, str] | Sequence[str] = (),
        *,
        code: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109 - for the waits of the robot, not for this call
    ) -> Robot:
        """Start a robot, and wait until it is ready and all of its devices are connected.

        A test may start several robots.

        Args:
            devices: The emulated devices, as ``TYPE@NUMBER`` or ``UID``, each optionally with
                initial values: ``limit-switch@1:{"switch0": true}``. A mapping gives them the names
                by which the team code finds them, as the option `dev_name` does.
            code: The file of the team code, relative to the directory of the test file. The code
                runs in a temporary directory. Without it the robot has no team code.
            options: Options by name, as in rt.toml, such as ``{"exec_timeout": {".*_main": 0.1}}``.
                No rt.toml is read.
            timeout: The time limit of everything that the robot and its devices wait for (s).

        Raises:
            ProcessStateError: The robot did not start, because of an invalid option, for example;
                the message contains its output.
            DeviceError: The catalog contains no such device or parameter.
            ExecutionError: There is no such file.
        """
        settings = {**_NO_HARDWARE, **(options or {})}
        if file := settings.get("dev_catalog"):
            settings["dev_catalog"] = str(self._directory / file)
        if code is not None:
            settings["exec_module"] = str(locate(str(code), self._directory))
        # A nursery has to end in the task that opened it, which here is not that of the test.
        run = functools.partial(_run, devices, settings, timeout)
        try:
            robot: Robot = await self._nursery.start(run)
        except ExceptionGroup as errors:
            raise next(leaves(errors)) from None
        return robot


async def _run(
    devices: Mapping[str, str] | Sequence[str],
    settings: dict[str, Any],
    timeout: float,  # noqa: ASYNC109 - for the waits of the robot
    task_status: trio.TaskStatus[Robot],
) -> None:
    """Run a robot until cancelled."""
    file = settings.get("dev_catalog")
    known = catalog.load(Path(file) if file else None)
    emulated = _emulated(devices, known)
    if isinstance(devices, Mapping):
        names = {name: str(each.uid) for name, each in emulated.items()}
        settings["dev_name"] = {**settings.get("dev_name", {}), **names}
    robot = Robot(known["gamepad"], timeout)
    with reserved_ports() as ports:
        async with _process(robot, settings, ports) as process, trio.open_nursery() as nursery:
            nursery.start_soon(robot.attend, process)
            try:
                await robot.wait_ready(process)
                remote = RemoteTarget(f"tcp://127.0.0.1:{ports}")
                async with open_remote(Config(), remote) as robot.connection:
                    nursery.start_soon(drive, robot, ports + 2, lambda: robot.gamepads)
                    async with trio.open_nursery() as plugging:
                        for name, each in emulated.items():
                            robot.devices[name] = Device(name, each, robot, ports + 4, nursery)
                            plugging.start_soon(robot.devices[name].plug)
                    task_status.started(robot)
                    await trio.sleep_forever()
            finally:
                process.terminate()
                with trio.move_on_after(_STOP_TIMEOUT, shield=True):
                    await process.wait()
                nursery.cancel_scope.cancel("the robot has stopped")


def _emulated(
    devices: Mapping[str, str] | Sequence[str], known: Catalog
) -> dict[str, EmulatedDevice]:
    """Return the emulated devices by name; those of a sequence are named as they are given."""
    specs = devices if isinstance(devices, Mapping) else {spec: spec for spec in devices}
    sim_state = SimState()
    emulated = {}
    for name, spec in specs.items():
        uid, values = parse_uid_spec(spec, known)
        emulated[name] = EmulatedDevice(known.of_uid(uid), uid, values, sim_state=sim_state)
    return emulated


@contextlib.asynccontextmanager
async def _process(
    robot: Robot, settings: Mapping[str, Any], ports: int
) -> AsyncIterator[CommandProcess]:
    """Start the process of a robot in a temporary directory, and remove all that it leaves."""
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        await trio.Path(folder, FILE_NAME).write_text(_toml(settings), "utf-8")
        places = dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "STATE_DIRECTORY"), folder)
        instance = Instance.locate(f"test-{secrets.token_hex(4)}", places)
        command = [
            *("env", *(f"--unset={name}" for name in os.environ if name.startswith("RT_"))),
            *(sys.executable, "-P", "-m", "rt", "--instance", instance.name, "run"),
            *("--port-base", str(ports), "--bind", "127.0.0.1", "--log-format", "json"),
        ]
        try:
            async with CommandProcess(
                command, cwd=folder, env=places, on_line=robot.take_line
            ) as process:
                yield process
        finally:
            end_processes(instance.directory)


@contextlib.contextmanager
def reserved_ports() -> Iterator[int]:
    """Reserve the ports of a robot; yield the first.

    An abstract socket reserves them among all processes of this machine that run tests.
    """
    while True:
        base = secrets.choice(_PORTS)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reservation:
            try:
                reservation.bind(f"\0rt.testing/ports/{base}")
            except OSError:
                continue
            # Not before: the check occupies the ports, which another test may have reserved.
            if are_free(base):
                yield base
                return


def _toml(options: Mapping[str, Any]) -> str:
    """Return a TOML file. JSON is valid TOML for every value that an option has, except maps."""
    tables = {name: value for name, value in options.items() if isinstance(value, Mapping)}
    lines = [
        f"{name} = {json.dumps(value)}" for name, value in options.items() if name not in tables
    ]
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += (f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items())
    return "\n".join(lines) + "\n"
