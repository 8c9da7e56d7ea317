"""The linter: takes a program and returns records. No part of the program is run.

Invariant: every program, also an invalid or hostile one, results in a list of records.
"""

import contextlib
import os.path
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rt import catalog
from rt.config import Config
from rt.config.load import FILE_NAME
from rt.config.team_code import is_file, locate
from rt.errors import ExecutionError
from rt.lint import api, check, flakes
from rt.lint.check import CheckContext
from rt.lint.module import Module
from rt.lint.program import Program
from rt.lint.record import Record, sort_records
from rt.lint.request import LintRequest

_PYTHON = frozenset({"", ".py", ".pyw", ".pyi"})
"""Suffixes of names that may be Python files."""
_NOQA = re.compile(r"#\s*noqa(?::\s*(?P<ids>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*))?", re.IGNORECASE)


def lint(request: LintRequest) -> list[Record]:
    """Lint team code: the main module, and the modules of its folder that it imports.

    If the request names files, each is linted as a module of the program that imports it, or else
    as a program of its own.

    Raises:
        ExecutionError: A file does not exist.
        CatalogError: The catalog is invalid.
    """
    directory, config = Path(request.directory).resolve(), request.config
    known = catalog.load(directory / config.dev_catalog if config.dev_catalog else None)
    if not request.files:
        return sort_records(
            _records(Program(locate(config.exec_module, directory), directory), config, known)
        )
    files = [_file_named(name, directory) for name in request.files]
    return sort_records(_records_of(files, directory, config, known))


def _file_named(name: str, directory: Path) -> Path:
    """Return the file with a path or module name that a user gave."""
    path = directory / name
    # Not Path.is_dir, which raises for some names.
    if os.path.isdir(path) and not is_file(path / "__init__.py"):  # noqa: PTH112
        raise ExecutionError(f"{name} is a directory: name a file in it", path=name)
    if path.suffix not in _PYTHON and is_file(path):
        remedy = (
            "`rt doctor --only config` checks it"
            if path.name == FILE_NAME
            else "name a file that ends in .py"
        )
        raise ExecutionError(f"{name} is not Python: {remedy}", path=name)
    try:
        return locate(name, directory)
    except ExecutionError:
        raise ExecutionError(f"no such file: {name}", path=name) from None


def _records_of(
    files: Sequence[Path], directory: Path, config: Config, known: catalog.Catalog
) -> Iterator[Record]:
    """Yield the records of some files, using the robot's program for those that it imports."""
    found: list[Record] = []
    program = None
    with contextlib.suppress(ExecutionError):
        program = Program(locate(config.exec_module, directory), directory)
        if not program.files.keys().isdisjoint(files):
            found = list(_records(program, config, known))
    for file in files:
        if program is not None and file in program.files:
            yield from (each for each in found if each.path == program.files[file])
        else:
            yield from _records(Program(file, directory, is_robot_program=False), config, known)


def _records(program: Program, config: Config, known: catalog.Catalog) -> Iterator[Record]:
    # Names that the program passes on, as in `arm.Robot = Robot`.
    passed_on = {name for name in api.NAMES if name in program.assigned_attributes}
    for module in program.modules.values():
        context = CheckContext(program, module, config, known)
        found = [
            *check.run(context),
            *check.guarded(
                module,
                "pyflakes",
                flakes.run(context, {*api.NAMES} if context.is_main else passed_on),
            ),
        ]
        suppressed = _suppressed(module)
        yield from (each for each in found if not _is_suppressed(suppressed, each))
    yield from program.broken


def _suppressed(module: Module) -> dict[int, frozenset[str] | None]:
    """Return the lines that end in ``# noqa``, with the numbers that each suppresses, or None.

    None stands for all numbers.
    """
    found = {}
    for number, line in enumerate(module.source.lines, start=1):
        match = _NOQA.search(line)
        if match is not None:
            found[number] = (
                None
                if match["ids"] is None
                else frozenset(re.split(r"[,\s]+", match["ids"].upper()))
            )
    return found


def _is_suppressed(suppressed: Mapping[int, frozenset[str] | None], found: Record) -> bool:
    if found.type == "fatal" or found.line not in suppressed:
        return False
    ids = suppressed[found.line]
    return ids is None or found.message_id in ids
