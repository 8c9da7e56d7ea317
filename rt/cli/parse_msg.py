"""The `rt parse-msg` command: Smart Device messages from hexadecimal to JSON."""

import json
from collections.abc import Iterator

import click

from rt.client import completers
from rt.client.option_flags import catalog_and_names, click_options
from rt.config import Loaded
from rt.errors import RuntimeBaseException
from rt.textformat.lines import convert_all
from rt.textformat.message import find_device
from rt.textformat.text import parse_text

HELP = """\
Print the Smart Device message of each frame as one line of JSON.

Each argument contains frames as hexadecimal, separated by 00. Without arguments, or for the
argument -, each line of stdin does. Spaces and 0x between bytes are ignored. Without --device,
parameters are shown as ids and values as bytes. An invalid frame is reported with the byte, counted
from 0, and the other frames are printed. rt format-msg is the inverse.

\b
rt parse-msg 02100210
rt parse-msg --device polar-bear 0414060101010103bfac
rt parse-msg --device left_motor '0x04 0x14 0x06 0x01 0x01 0x01 0x01 0x03 0xbf 0xac 0x00'
"""


@click.command(help=HELP)
@click.argument("frames", nargs=-1, metavar="[HEX|-]...")
@click.option(
    "--device",
    metavar="NAME|UID",
    shell_complete=completers.device_types,
    help="The device: a type of the catalog, a name in dev_name, or a UID.",
)
@click_options("dev_name", "dev_catalog")
def command(loaded: Loaded, frames: tuple[str, ...], device: str | None) -> int:
    """Print the Smart Device message of each frame as one line of JSON."""
    known, names = catalog_and_names(loaded.config)
    peripheral = None if device is None else find_device(device, known, names)

    def convert(text: str) -> Iterator[str | RuntimeBaseException]:
        for item in parse_text(text, known, peripheral):
            yield item if isinstance(item, RuntimeBaseException) else json.dumps(item)

    return convert_all(frames, convert)
