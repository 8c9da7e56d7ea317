"""The `rt config` command: the options, their values and the origins of the values."""

import json
from typing import Any

import click

from rt import config
from rt.client import completers
from rt.client.option_flags import click_options, json_option, text_of
from rt.terminal.console import console

HELP = """\
Show the options, their values and the origins of the values.

\b
rt config set NAME VALUE...     set an option; takes effect at the next start
rt config unset NAME...         undo that

A value comes from, in increasing priority: the default, rt.toml, `rt config set` or `rt call
set_option`, a variable, a flag. The variable of an option is RT_ and its name in capitals, such
as RT_PORT_BASE. Other variables are RT_CONFIG, which names the rt.toml to read, RT_INSTANCE_DIR
and RT_CHILD, which rt sets in the processes of a robot, and RT_BINARY, the executable that the
system tests start.

In addresses, {bind} is the option bind, {port0} to {port4} are the ports from port_base on, and
{dir} is the directory of this instance.
"""


class _Config(click.Command):
    """A command with the subcommands `set` and `unset`. No option has one of these names."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Return the context of `set` or `unset` if the arguments begin with it."""
        if args[:1] in (["set"], ["unset"]):
            from rt.cli.config_set import set_command, unset_command

            command = set_command if args[0] == "set" else unset_command
            return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=_Config, help=HELP)
@click.argument("names", nargs=-1, metavar="[OPTION]...", shell_complete=completers.options)
@json_option("Print value and origin of each option as JSON.")
@click_options()
def command(names: tuple[str, ...], as_json: bool, loaded: config.Loaded) -> None:
    """Show the options, their values and the origins of the values."""
    chosen = [config.find_option(name, "rt config") for name in names] or list(
        config.OPTIONS.values()
    )
    if as_json:
        rows = {
            option.name: {
                "value": getattr(loaded.config, option.name),
                "origin": loaded.origins[option.name],
            }
            for option in chosen
        }
        click.echo(json.dumps(rows, indent=2))
        return
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for heading in ("option", "value", "from"):
        table.add_column(heading, overflow="fold")
    for option in chosen:
        origin = loaded.origins[option.name]
        value = getattr(loaded.config, option.name)
        shown = (
            "\n".join(text_of(value).split(", "))
            if option.kind in {"list", "map"}
            else text_of(value)
        )
        style = "dim" if origin == "default" else "bold"
        table.add_row(
            option.name, Text(f"{shown} {option.unit}".strip() or "-", style), Text(origin, style)
        )
    console().print(table)
