"""The `rt` command and the table of its verbs.

The table contains the one-line help, because a verb's module is imported only when the verb runs.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import rt
from rt.startup import importing, restore_interrupts

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


SECTIONS = {
    "Drive": {
        "run": "Run the robot of this directory.",
        "demo": "Run an emulated robot and show its motors and sensors.",
        "call": "Call a method of the running robot, such as `rt call teleop`.",
        "logs": "Show the log of the robot.",
        "devices": "Show the devices and their values.",
        "read": "Request values from a device and print them.",
        "write": "Drive a device from the command line.",
        "subscribe": "Print the values of a device as they arrive.",
        "ping": "Measure how fast devices answer.",
    },
    "Set up": {
        "init": "Write a commented rt.toml and a first studentcode.py.",
        "config": "Show the options and the origins of their values, or set one.",
        "keys": "Manage the keys of driver's stations.",
        "lint": "Check the team's code without running it.",
        "completion": "Print the shell script that completes commands, devices and parameters.",
        "doctor": "Check this machine and the team's code.",
    },
    "Develop": {
        "emulate-dev": "Emulate Smart Devices that a robot can use.",
        "format-msg": "Print Smart Device messages as hexadecimal, from JSON.",
        "parse-msg": "Print Smart Device messages as JSON, from hexadecimal.",
    },
}
"""The verbs by section, each with its one-line help; `format-msg` is in `rt.cli.format_msg`."""
VERBS = {name: text for verbs in SECTIONS.values() for name, text in verbs.items()}
METHODS_AS_VERBS = {
    **{name: name for name in ("estop", "idle", "auto", "teleop", "mode", "execute", "disable")},
    **{name: name for name in ("status", "commander", "stations", "take_control")},
    **{name: name for name in ("release_control", "set_option", "get_option", "list_uids")},
    **dict.fromkeys(("stop", "halt"), "idle"),
    **dict.fromkeys(("autonomous", "start-auto"), "auto"),
    **dict.fromkeys(("take-control", "take"), "take_control"),
    "release-control": "release_control",
    "e-stop": "estop",
}
"""Words that users may mistake for verbs, and the methods for `rt call` that they mean."""


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the verbs in the order of the table."""
        return list(VERBS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Import a verb's module and return its command."""
        if cmd_name not in VERBS:
            return None
        with importing():
            module = importlib.import_module(f"rt.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that the arguments begin with.

        Raises:
            click.UsageError: The verb is unknown. The error suggests the nearest verb.
        """
        if args[0] not in VERBS and not args[0].startswith("-"):
            from rt.text import nearest

            if args[0] in METHODS_AS_VERBS:
                raise click.UsageError(
                    f"unknown verb {args[0]!r}; use `rt call {METHODS_AS_VERBS[args[0]]}`", ctx
                )
            raise click.UsageError(f"unknown verb {args[0]!r}{nearest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[Any]]":
        """Return the verbs and flags that begin with ``incomplete``, without importing verbs."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, text in VERBS.items()
            if name.startswith(incomplete)
        ]
        return found + (
            click.Command.shell_complete(self, ctx, incomplete)
            if incomplete.startswith("-")
            else []
        )

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the verbs by section, without importing them."""
        width = max(map(len, VERBS))
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in verbs.items()])


_HELP = """\
Run a robot: its processes, its Smart Devices and its team's code.

\b
New here?
  rt demo      an emulated robot, nothing to plug in
  rt init      files for a robot of your own
  rt doctor    is this machine ready?

See `rt VERB --help` for the flags of a verb.
"""


def _instances(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem[Any]]":
    from rt.client import completers

    return completers.instances(context, parameter, incomplete)


@click.group(
    cls=LazyGroup,
    help=_HELP,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(rt.__version__, prog_name="rt", message="%(prog)s %(version)s")
@click.option(
    "--instance",
    metavar="NAME",
    shell_complete=_instances,
    help="Name of the robot among those on this machine. [default]",
)
@click.option(
    "--debug/--no-debug",
    default=None,
    help="Log tracebacks of errors, and the tasks that block the event loop.",
)
def cli(instance: str | None, debug: bool | None) -> None:
    """Accept the flags before the verb. The verb reads them from the context."""


def run(arguments: Sequence[str], group: click.Group = cli) -> int:
    """Run the verb that the arguments name and return the exit status."""
    _open_missing_streams()
    if instruction := os.environ.get("_RT_COMPLETE"):
        from rt.cli.completion import complete

        return complete(group, instruction)
    context_meta: dict[str, bool] = {}
    if list(arguments[:1]) == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    try:
        restore_interrupts()
        with group.make_context("rt", list(arguments) or ["--help"]) as context:
            context_meta = context.meta
            result = group.invoke(context)
            return result if isinstance(result, int) else 0
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:  # noqa: BLE001
        from rt.terminal import failure

        return failure.report(error, debug=context_meta.get("rt.debug", "--debug" in arguments))


def _open_missing_streams() -> None:
    """Open /dev/null for each stream that the shell closed (``>&-``), where Python has None."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - never closed
