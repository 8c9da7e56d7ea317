"""The commands shown in the README and in help texts are valid."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import rt
from rt.cli import main

README = (Path(rt.__file__).parents[1] / "README.md").read_text("utf-8")
COMMAND = re.compile(r"^ *(rt [^|\n]*?)(?:   .*| *\||$)", re.MULTILINE)


def shown() -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        yield from (line for line in block.splitlines() if line.startswith("rt "))
    context = click.Context(main.cli)
    for name in main.VERBS:
        command = main.cli.get_command(context, name)
        assert command is not None
        _, _, examples = (command.help or "").partition("\b\n")
        yield from COMMAND.findall(examples)


@pytest.mark.parametrize("line", dict.fromkeys(shown()))
def test_example_is_valid_command(line: str) -> None:
    program, *words = shlex.split(line.partition(" <")[0], comments=True)
    assert program == "rt"
    context = main.cli.make_context("rt", words)
    command: click.Command = main.cli
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None
        try:
            context, command = found.make_context(name, words, parent=context), found
        except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
            return  # prints help


def test_examples_are_found() -> None:
    lines = list(shown())
    assert len(lines) > 40
    assert "rt write left_motor duty_cycle=-1 deadband=0.05 --seconds 2" in lines
