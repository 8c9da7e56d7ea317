"""The linter: what is wrong with the team's code, seen without running it.

`lint.lint` is pure but for reading the files; `child` runs it in a process of its own and `runner`
bounds that process.
"""

from rt.lint.record import Record
from rt.lint.request import LintRequest

__all__ = ["LintRequest", "Record"]
