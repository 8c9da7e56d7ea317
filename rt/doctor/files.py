"""Checks of files: the device catalog, the team code (compiled but never run) and the log file."""

import ast
import os
import tokenize
from pathlib import Path

from rt.config.team_code import find
from rt.doctor.registry import Environment, Result, check, fail, ok, skip, warn
from rt.errors import CatalogError
from rt.logs.place import log_path

_MIB = 1 << 20


@check("catalog")
def catalog(environment: Environment) -> Result:
    """The device catalog can be read and is valid."""
    from rt.catalog import load

    name = environment.config.dev_catalog
    try:
        peripherals = load(environment.directory / name if name else None)
    except CatalogError as error:
        return fail(
            str(error), "correct the catalog, or leave dev_catalog empty for the built-in one"
        )
    smart = [each for each in peripherals.values() if each.device_id is not None]
    return ok(f"{Path(name) if name else 'built-in catalog'}: {len(smart)} types of Smart Devices")


@check("code")
def code(environment: Environment) -> Result:
    """The team code exists and compiles."""
    name = environment.config.exec_module
    path = find(name, environment.directory)
    if path is None:
        absent = f"{name!r} is not in {environment.directory}"
        if environment.origins.get("exec_module", "default") != "default":
            return fail(absent, "correct exec_module, or run rt in the directory of the code")
        return warn(
            absent, "run `rt init` to create a studentcode.py; without it the robot is idle"
        )
    try:
        with tokenize.open(path) as file:
            source = file.read()
        tree = compile(source, str(path), "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f"{path}:{error.lineno}" if error.lineno else str(path)
        return fail(f"{place}: {error.msg}", "correct that line")
    except (ValueError, OSError) as error:
        return fail(f"{path}: {error}", "save the file as UTF-8 text that rt can read")
    # The code is not run, so names that are bound conditionally or by an import count too.
    bound: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=bound_name) | ast.AsyncFunctionDef(name=bound_name):
                bound.add(bound_name)
            case ast.Name(id=bound_name, ctx=ast.Store()):
                bound.add(bound_name)
            case ast.ImportFrom(names=aliases):
                bound.update(alias.asname or alias.name for alias in aliases)
    missing = [
        name
        for name in ("teleop_main", "autonomous_main")
        if name not in bound and "*" not in bound
    ]
    if missing:
        return warn(
            f"{path} has no {' and no '.join(missing)}",
            "define it; without it the mode does nothing after its setup",
        )
    return ok(f"{path} compiles, {len(source.splitlines())} lines; `rt lint` checks more")


@check("log-file")
def log_file(environment: Environment) -> Result:
    """The log file can be written, and the disk has room for it."""
    config = environment.config
    path = log_path(config.log_file, config.instance)
    if path is None:
        return skip("log_file is empty, so there is no log file")
    place = _existing_parent(path)
    remedy = "choose another log_file; the robot runs without a log file, as with an empty log_file"
    if path.is_dir():
        return warn(f"{path} is a directory", remedy)
    if not place.is_dir() and place != path:
        return warn(f"cannot create {path}: {place} is not a directory", remedy)
    if not os.access(place, os.W_OK if place == path else os.W_OK | os.X_OK):
        return warn(f"cannot write {path}: no write permission for {place}", remedy)
    space = os.statvfs(place)
    free = space.f_bavail * space.f_frsize
    most = config.log_file_size * config.log_file_count
    if free < most:
        return warn(
            f"{place} has {free // _MIB} MiB free, and the log files may take {most // _MIB} MiB",
            "free disk space, or lower log_file_size or log_file_count",
        )
    return ok(
        f"{path} can be written; the log files take at most {most // _MIB} MiB,"
        f" {free // _MIB} MiB are free"
    )


def _existing_parent(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    while not path.exists():
        path = path.parent
    return path
