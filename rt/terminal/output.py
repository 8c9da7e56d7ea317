"""What verbs print: lines that wait for their reader, and values as a shell's tools read them."""

import contextlib
import json
import math
import sys
from typing import Any

import click
import trio

from rt.textformat.value import short_float


class Output:
    """Lines on stdout that do not keep the event loop waiting for whoever reads them."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def line(self, text: str) -> None:
        """Print a line as soon as it is taken; a cancel before that prints nothing.

        Raises:
            BrokenPipeError: Nobody reads any more.
            OSError: It cannot be written, as on a full disk; `rt.terminal.failure` has the words
                for it.
        """
        async with self._lock:
            # What cannot be waited for, as a file, takes it at once; and there is none if it was
            # closed from the start.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                await trio.lowlevel.wait_writable(sys.stdout.fileno())
            click.echo(text)


def short(value: Any) -> Any:
    """A value with no more decimals than a device's number of 4 bytes has."""
    return short_float(value) if isinstance(value, float) else value


def jsonable(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON can have them: what is no number becomes null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def as_text(value: Any) -> str:
    """A value as a shell's tools read it: true, false or a number."""
    return str(value) if isinstance(value, float) else json.dumps(value)
