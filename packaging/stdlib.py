"""Which modules of the standard library the executable carries, and which of them can be imported here.

Team code may import any of them, so the rule is: all that the building interpreter has, but for the
few that need a window system, install packages, or test Python itself. Run as a script, it tries
each import and prints those that succeed; the executable is held to that list by the doctor's check
`stdlib`.
"""

import contextlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterator

# nis is gone from Python 3.13, and would bring the libraries of Sun RPC and Kerberos: 2 MB to
# unpack at each start.
LEFT_OUT = frozenset(
    {"ensurepip", "idlelib", "lib2to3", "nis", "test", "tkinter", "turtle", "turtledemo"}
)

# Importing these acts: a browser opens, a poem is printed. They are carried but not tried.
ACTS_ON_IMPORT = frozenset({"antigravity", "this"})


def names() -> Iterator[str]:
    """Yield the dotted name of every module and submodule to carry, packages before what is in them."""
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
            yield from _submodules(name, [os.path.join(entry, module.name) for entry in path])  # noqa: PTH118 - import paths are strings


def importable() -> Iterator[str]:
    """Yield those of `names` whose import succeeds in this interpreter."""
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
