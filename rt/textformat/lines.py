"""Messages as arguments or as lines of stdin, each told by its place; what is wrong with one keeps no other from its turn."""

import sys
from collections.abc import Callable, Iterator, Sequence

import click

from rt.errors import RuntimeBaseException


def convert_all(
    arguments: Sequence[str], convert: Callable[[str], Iterator[str | RuntimeBaseException]]
) -> int:
    """Print what each argument becomes, or each line of stdin; what is wrong with one is told with its place.

    Returns:
        The exit status: 1 if anything was wrong.
    """
    failed = 0
    for place, text in _texts(arguments):
        try:
            for item in convert(text):
                if isinstance(item, RuntimeBaseException):
                    failed = _tell(place, item)
                else:
                    click.echo(item)
        except RuntimeBaseException as error:
            failed = _tell(place, error)
    return failed


def _tell(place: str, error: RuntimeBaseException) -> int:
    click.echo(f"rt: {place}, {error}", err=True)
    return 1


def _texts(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, argument in enumerate(arguments or ["-"], 1):
        if argument != "-":
            yield f"argument {number}", argument
            continue
        for line, data in enumerate(sys.stdin.buffer if sys.stdin else (), 1):
            # Bytes that are no text are told as the wrong characters that they become.
            text = data.decode(errors="replace").rstrip("\r\n")
            if text.strip():
                yield f"line {line}", text
