"""`rt demo`: the whole of `rt run` on an emulated drive robot, driven by an emulated driver."""

import itertools
import math
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from rt.cli import robot, table
from rt.cli.number import Number
from rt.cli.options import click_options
from rt.config import Config, Loaded
from rt.errors import RuntimeBaseException
from rt.instance import Instance
from rt.protocol.control import DeviceUpdate, Stamp
from rt.remote import Handler, route

PROGRAM = Path(__file__).parent / "programs" / "drive.py"
DEVICES = {
    "left_motor": "polar-bear@1",
    "right_motor": "polar-bear@2",
    "bumper": "limit-switch@1",
    "battery": "battery@1",
    "arm": "servo-motor@1",
}
"""The robot: names that the program uses, and what is emulated."""

STICK_INTERVAL = 0.02
REFRESH_INTERVAL = 0.1
CONNECT_TIMEOUT = 5.0
_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_TIME_TO_MOVE = 1.0
PORTS = 5


class Tally(Handler):
    """Counts what the demo sees; receives device updates as a driver's station does."""

    def __init__(self) -> None:
        self.updates = 0
        self.calls = 0
        self.gamepads = 0
        self.restarts = 0
        self.seconds = 0.0
        self.ready = False
        self.moved = False
        self.complete = trio.Event()

    @route(inline=True)
    def update(self, update: DeviceUpdate) -> None:
        """Take in one update."""
        self.updates += 1
        if len(update) >= len(DEVICES):
            self.complete.set()
        self.moved = self.moved or any(values.get("duty_cycle") for values in update.values())

    def summary(self) -> str:
        """What was seen, in one line."""
        return (
            f"{_plural(self.updates, 'update')} seen, {_plural(self.gamepads, 'gamepad datagram')} sent, "
            f"{_plural(self.calls, 'call')} made, {_plural(self.restarts, 'restart')}"
        )


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@click.command()
@click.option(
    "--seconds",
    type=Number(0.5),
    metavar="SECONDS",
    help="End after so long a drive, at least 0.5. [until Ctrl-C]",
)
@click_options("instance", "port_base", "log_level", ignore_file=True)
def command(loaded: Loaded, seconds: float | None) -> None:
    """Run an emulated robot and watch its motors and sensors.

    Nothing is plugged in, and no rt.toml is read: two motors, a limit switch, a battery and a servo are emulated, and a built-in program follows a
    gamepad that this command moves. Everything else is what `rt run` runs.
    """
    from rich.console import Console

    console = Console()
    tally = Tally()
    config = _configured(loaded)
    driver = _Driver(console, tally, config, seconds)
    console.print("starting an emulated robot ...")
    code = robot.start(
        config,
        emulated=tuple(DEVICES.values()),
        beside=driver.drive,
        name="rt demo",
        quiet=True,
        level=None if loaded.origins["log_level"] == "default" else config.log_level,
    )
    if code == 0 and not tally.ready:
        click.echo("rt: ended before the robot was ready", err=True)
        raise SystemExit(_INTERRUPTED)
    if code == 0 and not tally.moved and tally.seconds >= _TIME_TO_MOVE:
        raise RuntimeBaseException(f"the emulated motors did not move: {tally.summary()}")
    console.print(f"the robot drove for {tally.seconds:.0f} s: {tally.summary()}", soft_wrap=True, highlight=False)
    started = how_started()
    console.print(f"next: `{started} init` writes files for a robot of your own", soft_wrap=True, highlight=False)
    raise SystemExit(code)


def how_started() -> str:
    """The command by which a person reaches this rt: bare if a shell finds it, else its path."""
    program = Path(sys.executable if getattr(sys, "frozen", False) else Path(sys.executable).parent / "rt")
    if shutil.which("rt") == str(program) or not program.is_file():
        return "rt"
    try:
        path = program.relative_to(Path.cwd())
    except ValueError:
        return str(program)
    return str(path) if len(path.parts) > 1 and path.parts[0].startswith(".") else f"./{path}"


def _configured(loaded: Loaded) -> Config:
    """The given options, and what the demo sets itself."""
    from rt import catalog
    from rt.smartdevice.uid_spec import parse_uid_spec

    known = catalog.load()
    config = loaded.config
    return msgspec.structs.replace(
        config,
        instance=_free_instance() if loaded.origins["instance"] == "default" else config.instance,
        port_base=_free_ports(config.port_base) if loaded.origins["port_base"] == "default" else config.port_base,
        exec_module=str(PROGRAM),
        dev_catalog="",
        dev_name={name: str(parse_uid_spec(spec, known)[0]) for name, spec in DEVICES.items()},
        dev_ports=(),
        log_file="",
    )


def _free_instance() -> str:
    """The name that a demo goes by; another one while a demo of that name runs."""
    return "demo" if Instance.locate("demo").holder() is None else f"demo-{os.getpid()}"


def _free_ports(first: int) -> int:
    """The first base from ``first`` on of which all ports are free, so that a demo runs beside a robot."""
    for base in range(first, first + 40 * PORTS, PORTS):
        if all(
            _is_free(base + number, kind) for number in range(PORTS) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        ):
            return base
    return first


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class _Driver:
    """The driver's station of the demo: moves the sticks, and shows the robot on the screen."""

    def __init__(self, console: Any, tally: Tally, config: Config, seconds: float | None) -> None:
        self._console = console
        self._tally = tally
        self._names = {int(uid): name for name, uid in config.dev_name.items()}
        self._seconds = math.inf if seconds is None else seconds
        self._sticks = (0.0, 0.0)

    async def drive(self, running: robot.Robot) -> None:
        """Let the robot drive in teleop for the time that was asked for, then let it be idle."""
        self._tally.ready = True
        app = running.app
        client = await app.make_client()
        await app.make_update_service(self._tally)
        store = app.make_buffer_manager()
        with trio.move_on_after(CONNECT_TIMEOUT):
            await self._tally.complete.wait()
        # As long as the robot: a driver who lets go before it is idle is told of in the log.
        app.nursery.start_soon(self._move_sticks, app)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show, store, running)
            await self._call(client, "teleop")
            start = trio.current_time()
            try:
                await trio.sleep(self._seconds)
            finally:
                self._tally.seconds = trio.current_time() - start
                self._tally.restarts = sum(status.restarts for status in running.supervisor.status())
            nursery.cancel_scope.cancel()
        await self._call(client, "idle")

    async def _call(self, client: Any, method: str) -> None:
        await client.issue_call(method, address="executor-service", timeout=15.0)
        self._tally.calls += 1

    async def _move_sticks(self, app: Any) -> None:
        control = await app.make_control_client()
        start = trio.current_time()
        station = secrets.token_hex(8)
        for number in itertools.count():
            phase = trio.current_time() - start
            sticks = {
                "lx": 0.4 * math.sin(phase),
                "ly": 0.8 * math.sin(0.7 * phase + 0.5),
                "rx": 0.0,
                "ry": 0.0,
                "btn": 0,
            }
            self._sticks = (sticks["lx"], sticks["ly"])
            stamp = Stamp(station, number, phase)
            await control.issue_call("update_gamepads", {"0": sticks}, stamp, notification=True)
            self._tally.gamepads += 1
            await trio.sleep(STICK_INTERVAL)

    async def _show(self, store: Any, running: robot.Robot) -> None:
        from rich.live import Live

        def draw() -> Any:
            turn, forward = self._sticks
            title = (
                f"rt demo: teleop, {self._tally.updates} updates seen; Ctrl-C ends it\n"
                f"gamepad: forward {forward:+.2f}  turn {turn:+.2f}"
            )
            return table.device_table(table.device_rows(store, self._names), title, width=self._console.width)

        def is_whole() -> bool:
            return all(status.ready for status in running.supervisor.status())

        last = draw()
        if not self._console.is_terminal:
            try:
                while True:
                    await trio.sleep(REFRESH_INTERVAL)
                    last = draw() if is_whole() else last
            finally:
                self._console.print(last)
        with Live(last, console=self._console, auto_refresh=False) as screen:
            while True:
                await trio.sleep(REFRESH_INTERVAL)
                # The last table stays as it was while the robot drove: not that of a robot which is being stopped.
                if is_whole():
                    screen.update(draw(), refresh=True)
