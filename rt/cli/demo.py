"""The `rt demo` command: a complete robot with emulated devices and an emulated driver."""

import os
import shutil
import sys
from pathlib import Path

import click
import msgspec

from rt import demo as demo_package
from rt.client.option_flags import click_options
from rt.config import Config, Loaded
from rt.demo.driver import Driver
from rt.errors import RuntimeBaseException
from rt.instance import Instance
from rt.root import lifecycle
from rt.terminal.console import console
from rt.terminal.number import Number

PROGRAM = Path(demo_package.__file__).parent / "programs" / "drive.py"
DEVICES = {
    "left_motor": "polar-bear@1",
    "right_motor": "polar-bear@2",
    "bumper": "limit-switch@1",
    "battery": "battery@1",
    "arm": "servo-motor@1",
}
"""The emulated devices by the names that the program uses."""

_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_MIN_DRIVE_TIME = 1.0


@click.command()
@click.option(
    "--seconds",
    type=Number(0.5),
    metavar="SECONDS",
    help="Drive for this time, at least 0.5, then exit. [until Ctrl-C]",
)
@click_options("instance", "port_base", "log_level", ignore_file=True)
def command(loaded: Loaded, seconds: float | None) -> None:
    """Run an emulated robot and show its motors and sensors.

    Two motors, a limit switch, a battery and a servo are emulated. A built-in program follows a
    gamepad that this command moves. Everything else is the same as in `rt run`. No hardware is
    needed, and rt.toml is not read.
    """
    screen = console()
    config = _configured(loaded)
    driver = Driver(screen, config, seconds)
    screen.print("starting an emulated robot ...")
    code = lifecycle.start(
        config,
        emulated=tuple(DEVICES.values()),
        robot_task=driver.drive,
        name="rt demo",
        quiet=True,
        level=None if loaded.origins["log_level"] == "default" else config.log_level,
    )
    if code == 0 and not driver.ready:
        click.echo("rt: stopped before the robot was ready", err=True)
        raise SystemExit(_INTERRUPTED)
    if code == 0 and not driver.moved and driver.driven >= _MIN_DRIVE_TIME:
        raise RuntimeBaseException(f"the emulated motors did not move: {driver.summary()}")
    for line in (
        f"the robot drove for {driver.driven:.0f} s: {driver.summary()}",
        f"next: `{program_command()} init` writes files for a robot of your own",
    ):
        screen.print(line, soft_wrap=True, highlight=False)
    raise SystemExit(code)


def program_command() -> str:
    """Return the command that starts this rt: `rt` if it is on the PATH, or else its path."""
    program = Path(
        sys.executable if getattr(sys, "frozen", False) else Path(sys.executable).parent / "rt"
    )
    if shutil.which("rt") == str(program) or not program.is_file():
        return "rt"
    try:
        path = program.relative_to(Path.cwd())
    except ValueError:
        return str(program)
    return str(path) if len(path.parts) > 1 and path.parts[0].startswith(".") else f"./{path}"


def _configured(loaded: Loaded) -> Config:
    """Return the given options with the demo's own."""
    from rt import catalog
    from rt.emulator.uid_spec import parse_uid_spec

    known = catalog.load()
    config = loaded.config
    # Another name while another demo runs.
    free = "demo" if Instance.locate("demo").holder() is None else f"demo-{os.getpid()}"
    return msgspec.structs.replace(
        config,
        instance=free if loaded.origins["instance"] == "default" else config.instance,
        port_base=lifecycle.free_ports(config.port_base) or config.port_base
        if loaded.origins["port_base"] == "default"
        else config.port_base,
        exec_module=str(PROGRAM),
        dev_catalog="",
        dev_name={name: str(parse_uid_spec(spec, known)[0]) for name, spec in DEVICES.items()},
        dev_ports=(),
        dev_usb_ids=(),
        log_file="",
    )
