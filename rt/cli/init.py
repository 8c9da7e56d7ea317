"""The `rt init` command: a first rt.toml and a first studentcode.py."""

import shlex
from pathlib import Path

import click

from rt.config import FILE_NAME
from rt.errors import RuntimeBaseException

STUDENT_CODE = '''\
"""The robot's program. `rt run` in this directory runs it; `rt lint` checks it.

Robot, Gamepad, Actions, Field and Alliance need no import. Name your devices in rt.toml under
[dev_name].
"""


def autonomous_setup():
    """Runs once when the autonomous period begins, for at most 1 s."""
    print("autonomous begins")


def autonomous_main():
    """Runs every 0.05 s in the autonomous period."""


def teleop_setup():
    """Runs once when the driver takes over."""
    print("teleop begins")


def teleop_main():
    """Runs every 0.05 s while the driver drives."""
    # Robot.write("left_motor", "duty_cycle", Gamepad.get("joystick_left_y"))
    # if Robot.get("bumper", "switch0"):
    #     Robot.write("left_motor", "duty_cycle", 0.0)
'''


@click.command(short_help="Write a commented rt.toml and studentcode.py.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--force", is_flag=True, help="Replace existing files.")
def command(directory: Path, force: bool) -> None:
    """Write a commented rt.toml and a first studentcode.py.

    The files go to DIRECTORY, by default the current one. Existing files are kept unless --force is
    given.
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
        raise RuntimeBaseException(f"cannot write {error.filename}: {error.strerror}") from None
    click.echo(", ".join(f"{what} {' and '.join(paths)}" for what, paths in done.items() if paths))
    if done["kept"]:
        click.echo("use --force to replace existing files")
    enter = (
        "" if directory.resolve() == Path.cwd() else f"`cd {shlex.quote(str(directory))}`, then "
    )
    click.echo(f"next: {enter}`rt doctor` to check this machine, `rt run` to run the robot")
