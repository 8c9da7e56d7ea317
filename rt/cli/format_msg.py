"""`rt format-msg`: Smart Device messages from JSON to hexadecimal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from rt import catalog
from rt.catalog import Catalog
from rt.catalog.notation_text import format_text
from rt.cli.options import click_options
from rt.config import Config, Loaded
from rt.errors import RuntimeBaseException

HELP = """\
Print the frame of each Smart Device message as hexadecimal, COBS-encoded.

Each argument is one message as JSON; without arguments, or where one is -, each line of stdin is. Parameters have names and values with a "device" (a type of the catalog, a name of dev_name or a UID) and ids without. Intervals are in ms. What is wrong is told with the character, counted from 1; the others are printed.

\b
rt format-msg '{"type": "PING"}'
rt format-msg '{"type": "DEV_WRITE", "device": "polar-bear", "params": {"duty_cycle": -0.5}}'
rt format-msg '{"type": "SUB_REQ", "params": [0, 2], "interval": 40}'
rt parse-msg --device rfid <frames.txt | rt format-msg
"""


@click.command(help=HELP)
@click.argument("messages", nargs=-1, metavar="[JSON|-]...")
@click.option("--delimiter", is_flag=True, help="Add the 00 that ends a frame on the line.")
@click_options("dev_name", "dev_catalog")
def command(loaded: Loaded, messages: tuple[str, ...], delimiter: bool) -> int:
    """Print the frame of each Smart Device message as hexadecimal."""
    known, names = known_devices(loaded.config)
    end = b"\0" if delimiter else b""

    def convert(text: str) -> Iterator[str]:
        yield (format_text(text, known, names) + end).hex()

    return convert_all(messages, convert)


def known_devices(config: Config) -> tuple[Catalog, dict[str, int]]:
    """The catalog of the options, and UIDs by the names that the team gave them.

    Raises:
        CatalogError: The catalog is wrong.
    """
    known = catalog.load(Path(config.dev_catalog) if config.dev_catalog else None)
    return known, {name: int(uid) for name, uid in config.dev_name.items()}


def convert_all(arguments: Sequence[str], convert: Callable[[str], Iterator[str | RuntimeBaseException]]) -> int:
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
