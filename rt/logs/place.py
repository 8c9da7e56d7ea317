"""Paths of log files."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from rt.config.overrides import state_home
from rt.instance.directory import Instance

AUTO = "auto"
"""Value of the option ``log_file`` for a file in `log_directory`."""
_LINK = "log"


def log_directory(env: Mapping[str, str] | None = None) -> Path:
    """Return the directory for the logs of all robots of this user; do not create it.

    It is ``$XDG_STATE_HOME/rt``, else ``/var/log/rt`` for root, else ``~/.local/state/rt``.
    """
    found = state_home(os.environ if env is None else env, Path("/var/log/rt"))
    return found or Path.home() / ".local" / "state" / "rt"


def log_path(option: str, instance: str, env: Mapping[str, str] | None = None) -> Path | None:
    """Return the log file of a robot, or None if it writes none.

    Args:
        option: Value of the option ``log_file``: ``auto``, a path, or "".
        instance: Name of the robot.
        env: The environment; by default that of this process.
    """
    if option == AUTO:
        return log_directory(env) / f"{instance}.log"
    return Path(option).absolute() if option else None


def link_log(directory: Path, file: Path) -> None:
    """Link the log file in the instance directory, where commands with other options find it.

    Args:
        directory: The instance directory.
        file: The newest file.
    """
    with contextlib.suppress(FileExistsError):
        (directory / _LINK).symlink_to(file)


def linked_log(directory: Path) -> Path | None:
    """Return the log file that is linked in an instance directory, or None.

    Raises:
        ConfigError: The directory belongs to another user or is a link.
    """
    Instance(directory.name, directory).verify()
    try:
        return (directory / _LINK).readlink()
    except OSError:
        return None
