"""`rt completion SHELL`, and how a shell is answered when somebody presses Tab; what it is offered stands in `rt.client.completers`.

The rule of this module: whoever presses Tab gets an answer or none, and never a message.
"""

import contextlib
import os
from pathlib import Path

import click
from click.shell_completion import ShellComplete, get_completion_class

VARIABLE = "_RT_COMPLETE"
"""Set by the shell's function: what is asked for."""

SHELLS = ("bash", "zsh", "fish")

HELP = """\
Print what makes the Tab key complete verbs, flags, methods, devices and their parameters.

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
    text = ShellComplete.source(_of(shell, click.Group("rt")))
    # Whoever has completed `duty_cycle=` goes on with the value: other than fish, bash has to be
    # told.
    return text.replace(
        "COMPREPLY+=($value)",
        "COMPREPLY+=($value)\n            [[ $value == *= ]] && compopt -o nospace",
    )


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
