"""The `rt lint` command: checks of the team's code that do not run it."""

import json
import os
from pathlib import Path

import click
import msgspec
import trio

from rt.client.option_flags import click_options, json_option
from rt.config import Loaded

HELP = """\
Check the team's code, or the given files, without running it.

Prints each problem as path:line:column: severity: message [symbol]. pyflakes finds Python errors;
rt's own checks find errors that rt would report when the code runs (devices, parameters, values,
actions, time limits). Modules in the team's directory that the program imports are checked too. A
line that ends in `# noqa` or `# noqa: RT401` is skipped.

\b
Exit status:
  0     no problems, or only warnings
  1     errors
"""


@click.command(help=HELP)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@json_option("Print a JSON list of records in pylint's format.")
@click.option("--list", "listing", is_flag=True, help="List rt's own checks.")
@click_options("dev_catalog", "dev_name", "exec_module", "exec_timeout")
def command(loaded: Loaded, paths: tuple[str, ...], as_json: bool, listing: bool) -> int:
    """Check the team's code without running it."""
    if listing:
        from rt.lint.check import checks

        for each in checks().values():
            click.echo(f"{each.id}  {each.type:<7}  {each.symbol:<26}  {each.meaning}")
        return 0
    from rt.lint.request import LintRequest
    from rt.lint.runner import run_lint

    request = LintRequest(directory=os.fspath(Path.cwd()), config=loaded.config, files=paths)
    records = trio.run(run_lint, request)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(records), indent=2, ensure_ascii=False))
    else:
        for record in records:
            click.echo(record.text())
    return int(any(record.fails for record in records))
