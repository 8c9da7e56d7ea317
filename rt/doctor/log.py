"""Checks of the log file: that it can be written, and that the disk has room for it."""

import os
from pathlib import Path

from rt.doctor.registry import Environment, Result, check, ok, skip, warn
from rt.logs.place import log_path

_MIB = 1 << 20


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
