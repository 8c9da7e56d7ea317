"""`rt init`: the two files that a team begins with."""

import shlex
from pathlib import Path

import click

from rt.config import FILE_NAME
from rt.errors import RuntimeBaseException

STUDENT_CODE = '''\
"""The robot's program. `rt run` in this directory runs it; `rt lint` checks it.

Robot, Gamepad, Actions, Field and Alliance are there without an import. Name your devices in rt.toml under [dev_name].
"""


def autonomous_setup():
    """Runs once when the autonomous period begins; it may take 1 s."""
    print("autonomous begins")


def autonomous_main():
    """Runs again and again in the autonomous period, every 0.05 s."""


def teleop_setup():
    """Runs once when the driver takes over."""
    print("teleop begins")


def teleop_main():
    """Runs again and again while the driver drives, every 0.05 s."""
    # Robot.write("left_motor", "duty_cycle", Gamepad.get("joystick_left_y"))
    # if Robot.get("bumper", "switch0"):
    #     Robot.write("left_motor", "duty_cycle", 0.0)
'''


@click.command(short_help="Write a commented rt.toml and studentcode.py.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--force", is_flag=True, help="Replace files that are there.")
def command(directory: Path, force: bool) -> None:
    """Write a commented rt.toml and a first studentcode.py into DIRECTORY (here, when none is named).

    A file that is there already is kept, and only what is missing is written; --force replaces
    both.
    """
    from rt.config.template import template

    files = {directory / FILE_NAME: template(), directory / "studentcode.py": STUDENT_CODE}
    done: dict[str, list[str]] = {"kept": [], "replaced": [], "wrote": []}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            there = path.exists()
            done["wrote" if not there else "replaced" if force else "kept"].append(str(path))
            if force or not there:
                path.write_text(text, "utf-8")
    except OSError as error:
        raise RuntimeBaseException(
            f"{error.filename} cannot be written: {error.strerror}"
        ) from None
    click.echo(", ".join(f"{what} {' and '.join(paths)}" for what, paths in done.items() if paths))
    if done["kept"]:
        click.echo("--force replaces what was kept")
    enter = (
        "" if directory.resolve() == Path.cwd() else f"`cd {shlex.quote(str(directory))}`, then "
    )
    click.echo(f"next: {enter}`rt doctor` checks this machine, `rt run` runs the robot")
