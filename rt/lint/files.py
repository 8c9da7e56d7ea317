"""Files of the team's code: those that a module imports.

The rule of this module: a file is the team's if it lies in the directory of the main one, and in no
library's.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from rt.config.team_code import is_file
from rt.lint.module import Module

_LIBRARIES = frozenset({"site-packages", "dist-packages"})


def files_of(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a module that is imported, its packages' first, each with its name, as far as they are the team's."""
    parts = name.split(".")
    if parts[0] in sys.builtin_module_names or not {*parts}.isdisjoint({*_LIBRARIES, ""}):
        return
    for count in range(1, len(parts) + 1):
        base = folder.joinpath(*parts[:count])
        for file in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if is_file(file):
                yield ".".join(parts[:count]), file
                break


def imports(module: Module, package: str) -> Iterator[str]:
    """The dotted names of everything that a module imports, each perhaps no module but a name in one."""
    for node, _ in module.nodes():
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".") if package else []
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)
