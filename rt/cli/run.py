"""`rt run`: the robot."""

from pathlib import Path

import click

from rt.client.options import click_options
from rt.config import OPTIONS, Config, Loaded, nearest
from rt.config.overrides import ORIGIN
from rt.config.team_code import find
from rt.root import lifecycle

HELP = """\
Run the robot that is described here.

Options come from rt.toml in this directory, RT_* variables and the flags below; the team's code
from exec_module. The robot starts idle: `rt call teleop` lets it drive, `rt call idle` stops it.
Ctrl-C or SIGTERM ends it in order, a second one at once.

\b
Exit status:
  0     ended in order
  75    another robot holds the instance or an address
  78    an option or the catalog is wrong
  255   emergency stop
"""


@click.command(help=HELP)
@click_options()
def command(loaded: Loaded) -> int:
    """Run the robot that is described here."""
    afar = [name for name, origin in loaded.origins.items() if ORIGIN in origin.split(", ")]
    if afar:
        click.echo(
            f"rt: set over rt.toml: {', '.join(afar)}; `rt config` shows the values, `rt config unset` takes them back",
            err=True,
        )
    problem = code_problem(loaded.config, Path.cwd())
    if problem:
        click.echo(f"rt: {problem}", err=True)
    return lifecycle.start(loaded.config)


def code_problem(config: Config, directory: Path) -> str:
    """Why the robot will stay idle, in one sentence; empty when the team's code is there and compiles."""
    path = find(config.exec_module, directory)
    if path is None:
        name = (
            config.exec_module if config.exec_module.endswith(".py") else f"{config.exec_module}.py"
        )
        if config.exec_module != OPTIONS["exec_module"].default:
            hint = (
                nearest(name, (each.name for each in directory.glob("*.py")))
                or "; correct exec_module"
            )
            return f"there is no {name} here: the robot stays idle{hint}"
        return f"there is no {name} here: the robot stays idle; `rt init` writes one"
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        return (
            f"{path}:{error.lineno or 1}: {error.msg}: the robot stays idle until that is corrected"
        )
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}: the robot stays idle"
    return ""
