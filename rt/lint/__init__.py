"""The linter: finds errors in team code without running it.

`lint.lint` does no I/O except reading the files. `child` runs it in a process of its own, and
`runner` bounds that process.
"""

from rt.lint.record import Record
from rt.lint.request import LintRequest

__all__ = ["LintRequest", "Record"]
