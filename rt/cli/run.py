"""The `rt run` command: the robot."""

from pathlib import Path

import click

from rt.client.option_flags import click_options
from rt.config import Config, Loaded
from rt.config.option_info import OPTIONS
from rt.config.overrides import ORIGIN
from rt.config.team_code import find
from rt.root import lifecycle
from rt.text import nearest

HELP = """\
Run the robot of this directory.

Options come from rt.toml in this directory, RT_* variables and flags; the team's code comes from
exec_module. The robot starts idle: `rt call teleop` lets it drive, `rt call idle` stops it. Ctrl-C
or SIGTERM stops the robot in order; a second one stops it at once.

\b
Exit status:
  0     stopped in order
  75    another robot holds the instance or an address
  78    an option or the catalog is invalid
  255   emergency stop
"""


@click.command(help=HELP)
@click_options()
def command(loaded: Loaded) -> int:
    """Run the robot of this directory."""
    overridden = [name for name, origin in loaded.origins.items() if ORIGIN in origin.split(", ")]
    if overridden:
        click.echo(
            f"rt: overrides of rt.toml: {', '.join(overridden)};"
            " see `rt config`, and `rt config unset` to remove them",
            err=True,
        )
    problem = code_problem(loaded.config, Path.cwd())
    if problem:
        click.echo(f"rt: {problem}", err=True)
    return lifecycle.start(loaded.config)


def code_problem(config: Config, directory: Path) -> str:
    """Return why the team's code cannot run; empty if it exists and compiles."""
    path = find(config.exec_module, directory)
    if path is None:
        name = f"{config.exec_module.removesuffix('.py')}.py"
        hint = "; `rt init` writes one"
        if config.exec_module != OPTIONS["exec_module"].default:
            files = (each.name for each in directory.glob("*.py"))
            hint = nearest(name, files) or "; correct exec_module"
        return f"no {name} in this directory, so the robot stays idle{hint}"
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        return (
            f"{path}:{error.lineno or 1}: {error.msg}; the robot stays idle until this is corrected"
        )
    except (OSError, ValueError) as error:
        return f"cannot read {path}: {error}; the robot stays idle"
    return ""
