"""Where a robot keeps its log."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from rt.instance.directory import Instance

AUTO = "auto"
"""What an option says that leaves the place to rt."""
_MARK = "log"


def log_directory(env: Mapping[str, str] | None = None) -> Path:
    """The directory for the logs of all robots of this user; makes nothing.

    It is ``$XDG_STATE_HOME/rt``, else ``/var/log/rt`` for root, else ``~/.local/state/rt``.
    """
    env = os.environ if env is None else env
    given = env.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return Path(given) / "rt"
    if os.geteuid() == 0:
        return Path("/var/log/rt")
    home = env.get("HOME", "")
    return (Path(home) if home.startswith("/") else Path.home()) / ".local" / "state" / "rt"


def log_path(option: str, instance: str, env: Mapping[str, str] | None = None) -> Path | None:
    """The file that keeps the log of a robot, or None if it keeps none.

    Args:
        option: The option ``log_file``: ``auto``, a path, or nothing.
        instance: The name of the robot.
        env: The environment.
    """
    if option == AUTO:
        return log_directory(env) / f"{instance}.log"
    return Path(option).absolute() if option else None


def link_log(directory: Path, file: Path) -> None:
    """Let commands find the file of a robot that runs, whatever options they have themselves.

    Args:
        directory: The instance directory.
        file: The newest file.
    """
    with contextlib.suppress(FileExistsError):
        (directory / _MARK).symlink_to(file)


def linked_log(directory: Path) -> Path | None:
    """The file that the robot of an instance directory keeps its log in, or None if it keeps none.

    Raises:
        ConfigError: The directory belongs to another user, or is a link.
    """
    Instance(directory.name, directory).verify()
    try:
        return (directory / _MARK).readlink()
    except OSError:
        return None
