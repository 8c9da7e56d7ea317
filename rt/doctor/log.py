"""Checks of the log: that the file that keeps it can be written, and that there is room for it."""

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
        return skip("log_file is empty: the log is kept nowhere")
    place = _nearest(path)
    remedy = "the robot runs without a log file: choose another with log_file, or let it be none with an empty one"
    if path.is_dir():
        return warn(f"{path} is a directory", remedy)
    if not place.is_dir() and place != path:
        return warn(f"{path} cannot be made: {place} is no directory", remedy)
    if not os.access(place, os.W_OK if place == path else os.W_OK | os.X_OK):
        return warn(f"{path} cannot be written: {place} lets nobody like us write", remedy)
    space = os.statvfs(place)
    free = space.f_bavail * space.f_frsize
    most = config.log_file_size * config.log_file_count
    if free < most:
        return warn(
            f"{place} has {free // _MIB} MiB free, and the log files may take {most // _MIB} MiB",
            "make room there, or lower log_file_size or log_file_count",
        )
    return ok(
        f"{path} can be written; the log files take {most // _MIB} MiB at most, {free // _MIB} MiB are free"
    )


def _nearest(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    while not path.exists():
        path = path.parent
    return path
