"""The modules of the standard library that the executable contains.

Invariant: the executable contains all modules of the building interpreter, because team code may
import any of them, except those that need a window system, install packages or test Python itself.
As a script, it tries each import and prints the successful ones. The doctor's check `stdlib`
verifies that the executable can import them.
"""

import contextlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterator

# nis was removed in Python 3.13. Its libraries of Sun RPC and Kerberos take 2 MB, which each start
# would unpack.
LEFT_OUT = frozenset(
    {"ensurepip", "idlelib", "lib2to3", "nis", "test", "tkinter", "turtle", "turtledemo"}
)

# Modules with visible effects at import (a browser opens, a poem is printed). Included, not tried.
ACTS_ON_IMPORT = frozenset({"antigravity", "this"})


def names() -> Iterator[str]:
    """Yield the dotted names of all included modules, packages before their submodules."""
    for name in sorted(sys.stdlib_module_names):
        if name in LEFT_OUT or name.startswith(
            ("_test", "_xxtest", "xx", "_tkinter", "_ctypes_test", "__")
        ):
            continue
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is None:  # of another platform
            continue
        yield name
        if spec.submodule_search_locations:
            yield from _submodules(name, list(spec.submodule_search_locations))


def _submodules(package: str, path: list[str]) -> Iterator[str]:
    for module in pkgutil.iter_modules(path):
        if module.name in {"test", "tests", "idle_test"}:
            continue
        name = f"{package}.{module.name}"
        yield name
        if module.ispkg:
            folders = [os.path.join(entry, module.name) for entry in path]  # noqa: PTH118
            yield from _submodules(name, folders)


def importable() -> Iterator[str]:
    """Yield the `names` that this interpreter can import."""
    for name in names():
        if name in ACTS_ON_IMPORT or name.endswith(".__main__"):
            continue
        try:
            with contextlib.redirect_stdout(sys.stderr):
                importlib.import_module(name)
        except (
            ImportError,
            AttributeError,
            OSError,
        ):  # modules of another platform fail in these ways
            continue
        yield name


if __name__ == "__main__":
    print("\n".join(importable()))
