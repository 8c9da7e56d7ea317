"""The `rt doctor` command: checks of the machine, the configuration and the team's code."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rt.client import completers
from rt.client.option_flags import click_options, json_option
from rt.config import Config, Loaded
from rt.errors import ConfigError
from rt.terminal.console import console

if TYPE_CHECKING:
    from rt.doctor import Environment

_DOCTOR_FAILED = 2


@click.command(short_help="Check this machine and the team's code.")
@json_option("Print id, status, fact and remedy as a JSON list.")
@click.option(
    "--only",
    multiple=True,
    metavar="ID",
    shell_complete=completers.checks,
    help="Run only this check (repeatable).",
)
@click.option("--list", "listing", is_flag=True, help="List the checks instead of running them.")
@click_options(
    "bind",
    "insecure",
    "keys_dir",
    "port_base",
    "dev_catalog",
    "dev_ports",
    "exec_module",
    load=False,
)
def command(
    as_json: bool, only: tuple[str, ...], listing: bool, loaded: Callable[[], Loaded]
) -> int:
    """Check this machine, the configuration and the team's code.

    Each check prints what it found and how to fix a problem. The exit status is 0 if there are no
    problems or only warnings, 1 if a check failed, and 2 if the doctor could not run.
    """
    from rt import doctor
    from rt.doctor import report

    if listing:
        for each in doctor.checks().values():
            click.echo(f"{each.id:<12} {each.meaning}{' (on request)' if each.on_request else ''}")
        return 0
    try:
        findings = doctor.examine(_environment(loaded), only)
    except LookupError as error:
        raise click.UsageError(f"{error.args[0]}; see `rt doctor --list`") from None
    except OSError as error:
        click.echo(f"rt: cannot run the checks: {error}", err=True)
        return _DOCTOR_FAILED
    if as_json:
        click.echo(report.as_json(findings))
    else:
        report.show(findings, console())
    return report.exit_status(findings)


def _environment(loaded: Callable[[], Loaded]) -> "Environment":
    from rt.doctor import Environment
    from rt.doctor.running import running_config

    directory = Path.cwd()
    try:
        found = loaded()
    except ConfigError as error:
        return Environment(config=Config(), problem=str(error), directory=directory)
    return Environment(
        config=found.config,
        origins=found.origins,
        directory=directory,
        running=running_config(found.config.instance),
    )
