"""The console that commands print tables on."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 120
"""Columns of output to a file or pipe without the variable COLUMNS."""


def console() -> "Console":
    """Return a console on stdout, `WIDTH` wide for a file or pipe so tables keep all columns."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH)
