"""The `rt format-msg` command: Smart Device messages from JSON to hexadecimal."""

from collections.abc import Iterator

import click

from rt.client.option_flags import catalog_and_names, click_options
from rt.config import Loaded
from rt.textformat.lines import convert_all
from rt.textformat.text import format_text

HELP = """\
Print the frame of each Smart Device message as hexadecimal, COBS-encoded.

Each argument is a message as JSON. Without arguments, or for the argument -, each line of stdin is
a message. With a "device" (a type of the catalog, a name in dev_name or a UID), parameters have
names and values; without, they have ids. Intervals are in ms. An invalid message is reported with
the character, counted from 1, and the other messages are printed.

\b
rt format-msg '{"type": "PING"}'
rt format-msg '{"type": "DEV_WRITE", "device": "polar-bear", "params": {"duty_cycle": -0.5}}'
rt format-msg '{"type": "SUB_REQ", "params": [0, 2], "interval": 40}'
rt parse-msg --device rfid <frames.txt | rt format-msg
"""


@click.command(help=HELP)
@click.argument("messages", nargs=-1, metavar="[JSON|-]...")
@click.option("--delimiter", is_flag=True, help="Add the 00 that ends each frame.")
@click_options("dev_name", "dev_catalog")
def command(loaded: Loaded, messages: tuple[str, ...], delimiter: bool) -> int:
    """Print the frame of each Smart Device message as hexadecimal."""
    known, names = catalog_and_names(loaded.config)
    end = b"\0" if delimiter else b""

    def convert(text: str) -> Iterator[str]:
        yield (format_text(text, known, names) + end).hex()

    return convert_all(messages, convert)
