"""Finds the files of team code that a module imports.

Invariant: a file is team code if it is in the folder of the main module, and not in a library's.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from rt.config.team_code import is_file
from rt.lint.module import Module

_LIBRARIES = frozenset({"site-packages", "dist-packages"})


def files_of(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of an imported module, outer packages first, each with its dotted name.

    Files that are not team code are left out.
    """
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
    """Yield the dotted names of a module's imports; one may be a name in a module, not a module."""
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
