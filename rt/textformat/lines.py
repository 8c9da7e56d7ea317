"""Conversion of messages given as arguments or as lines of stdin.

Invariant: an invalid message is reported with its position and does not stop the others.
"""

import sys
from collections.abc import Callable, Iterator, Sequence

import click

from rt.errors import RuntimeBaseException


def convert_all(
    arguments: Sequence[str], convert: Callable[[str], Iterator[str | RuntimeBaseException]]
) -> int:
    """Convert each argument, or each line of stdin, and print the results and errors.

    Returns:
        The exit status: 1 if there was an error.
    """
    failed = 0
    for position, text in _texts(arguments):
        try:
            for item in convert(text):
                if isinstance(item, RuntimeBaseException):
                    failed = _report(position, item)
                else:
                    click.echo(item)
        except RuntimeBaseException as error:
            failed = _report(position, error)
    return failed


def _report(position: str, error: RuntimeBaseException) -> int:
    click.echo(f"rt: {position}, {error}", err=True)
    return 1


def _texts(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, argument in enumerate(arguments or ["-"], 1):
        if argument != "-":
            yield f"argument {number}", argument
            continue
        for line, data in enumerate(sys.stdin.buffer if sys.stdin else (), 1):
            # Invalid UTF-8 is reported as replacement characters.
            text = data.decode(errors="replace").rstrip("\r\n")
            if text.strip():
                yield f"line {line}", text
