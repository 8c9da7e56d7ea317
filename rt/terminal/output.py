"""Output of commands: lines that do not block the event loop, and values for shell tools."""

import contextlib
import json
import math
import sys
from typing import Any

import click
import trio


class Output:
    """Lines on stdout. A slow reader does not block the event loop."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def line(self, text: str) -> None:
        """Wait until stdout is writable, then print a line. If cancelled, print nothing.

        Raises:
            BrokenPipeError: The reader closed the pipe.
            OSError: Writing failed, for example because the disk is full.
        """
        async with self._lock:
            # Files cannot be waited for and are always writable. A closed stdout is None.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                await trio.lowlevel.wait_writable(sys.stdout.fileno())
            click.echo(text)


def jsonable(values: dict[str, Any]) -> dict[str, Any]:
    """Return values for JSON: NaN and infinities become null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def as_text(value: Any) -> str:
    """Return a value as text for shell tools: true, false or a number."""
    return str(value) if isinstance(value, float) else json.dumps(value)
