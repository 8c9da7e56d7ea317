"""Where verbs print tables."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 120
"""Columns where there is no terminal and no variable COLUMNS to tell how many there are."""


def console() -> "Console":
    """What prints on stdout, as wide as the terminal; into a file or a pipe so wide that no table loses a column."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH)
