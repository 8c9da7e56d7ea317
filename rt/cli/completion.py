"""The `rt completion SHELL` command, and the answers to a shell that asks for completions.

The completions are in `rt.client.completers`.

Invariant: a completion request prints completions or nothing, and never an error.
"""

import contextlib
import os
from pathlib import Path

import click
from click.shell_completion import ShellComplete, get_completion_class

VARIABLE = "_RT_COMPLETE"
"""The variable by which the shell's function asks for completions."""

SHELLS = ("bash", "zsh", "fish")

HELP = """\
Print the shell script that completes commands, flags, methods, devices and parameters.

\b
bash: add to ~/.bashrc                     eval "$(rt completion bash)"
zsh:  add to ~/.zshrc, after compinit      eval "$(rt completion zsh)"
fish: rt completion fish > ~/.config/fish/completions/rt.fish
"""


@click.command(help=HELP)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(shell: str | None) -> None:
    """Print the script of a shell, or the help without SHELL."""
    if shell is not None:
        click.echo(script(shell))
        return
    mine = Path(os.environ.get("SHELL", "")).name
    click.echo(click.get_current_context().get_help())
    if mine in SHELLS:
        click.echo(f"\nYour shell seems to be {mine}.")


def script(shell: str) -> str:
    """Return the function of a shell that asks rt for completions."""
    text = ShellComplete.source(_of(shell, click.Group("rt")))
    # A value follows `duty_cycle=`, so bash must not add a space. fish does this itself.
    return text.replace(
        "COMPREPLY+=($value)",
        "COMPREPLY+=($value)\n            [[ $value == *= ]] && compopt -o nospace",
    )


def complete(group: click.Group, instruction: str) -> int:
    """Answer a request of the shell, and return the exit status."""
    shell, _, action = instruction.partition("_")
    with contextlib.suppress(Exception):
        if shell in SHELLS and action == "complete":
            found = _of(shell, group).complete()
            if found:
                click.echo(found)
    return 0


def _of(shell: str, group: click.Command) -> ShellComplete:
    cls = get_completion_class(shell)
    assert cls is not None
    return cls(group, {}, "rt", VARIABLE)
