"""`rt completion SHELL`, and what a shell is told when somebody presses Tab: verbs, flags, and names of the running robot.

The rule of this module: whoever presses Tab gets an answer soon or none, and never a message. Without a robot only verbs and
flags are known.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

if TYPE_CHECKING:
    from rt.cli.link import Link

VARIABLE = "_RT_COMPLETE"
"""Set by the shell's function: what is asked for."""

PATIENCE = 0.5
"""How long the robot may take to say its names, in s."""

SHELLS = ("bash", "zsh", "fish")

HELP = """\
Print what makes the Tab key complete verbs, flags, methods and device names.

\b
bash: add to ~/.bashrc                     eval "$(rt completion bash)"
zsh:  add to ~/.zshrc, after compinit      eval "$(rt completion zsh)"
fish: rt completion fish > ~/.config/fish/completions/rt.fish
"""


@click.command(help=HELP)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(shell: str | None) -> None:
    """Print the script of a shell, or say how to use one."""
    if shell is not None:
        click.echo(script(shell))
        return
    mine = Path(os.environ.get("SHELL", "")).name
    click.echo(click.get_current_context().get_help())
    if mine in SHELLS:
        click.echo(f"\nThis shell seems to be {mine}.")


def script(shell: str) -> str:
    """The function of a shell that asks rt for completions."""
    return ShellComplete.source(_of(shell, click.Group("rt")))


def complete(group: click.Group, instruction: str) -> int:
    """Answer the shell, and say nothing if there is nothing to say."""
    shell, _, action = instruction.partition("_")
    with contextlib.suppress(Exception):
        if shell in SHELLS and action == "complete":
            found = _of(shell, group).complete()
            if found:
                click.echo(found)
    return 0


def _of(shell: str, group: click.Command) -> ShellComplete:
    kind = get_completion_class(shell)
    assert kind is not None
    return kind(group, {}, "rt", VARIABLE)


def methods(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    """The methods of the running robot, and with their service where several have one of that name."""

    async def ask(robot: "Link") -> dict[str, str]:
        found: dict[str, str] = {}
        for service, entries in (await robot.describe()).items():
            short = service.removesuffix("-service")
            for name, info in entries.items():
                text = info["doc"].strip().partition("\n")[0]
                found.setdefault(name, text)
                found[f"{short}.{name}"] = text
        return {name: text for name, text in found.items() if "." in incomplete or "." not in name}

    return _items(_ask(context, ask), incomplete)


def devices(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    """The Smart Devices that are connected, by the names that the team gave them or else by their UIDs."""

    async def ask(robot: "Link") -> dict[str, str]:
        call = robot.client.issue_call
        names = {uid: name for name, uid in (await call("get_option", "dev_name", address="broker-service")).items()}
        uids = await call("list_uids", address="device-service")
        return {str(names.get(uid, uid)): str(uid) if uid in names else "" for uid in uids}

    return _items(_ask(context, ask), incomplete)


def _items(found: dict[str, str], incomplete: str) -> list[CompletionItem[Any]]:
    return [CompletionItem(name, help=text or None) for name, text in found.items() if name.startswith(incomplete)]


def _ask(context: click.Context, function: Callable[["Link"], Awaitable[dict[str, str]]]) -> dict[str, str]:
    """What the robot says, or nothing: if there is none, or if it takes its time."""
    from rt.instance import Instance

    with contextlib.suppress(Exception):
        given: Iterable[Any] = (context.params.get("instance"), context.find_root().params.get("instance"))
        name = next(filter(None, given), os.environ.get("RT_INSTANCE") or "default")
        if Instance.locate(name).holder() is None:
            return {}
        import trio

        from rt import config, log
        from rt.cli.link import connect

        log.configure(level="critical", fmt="pretty")
        loaded = config.load(flags={"instance": name}, env={}, cwd=Path(os.devnull))

        async def main() -> dict[str, str]:
            with trio.move_on_after(PATIENCE):
                async with connect(loaded.config) as robot:
                    return await function(robot)
            return {}

        return trio.run(main)
    return {}
