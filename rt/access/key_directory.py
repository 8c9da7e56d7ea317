"""Where a robot keeps its keys, and which files are such.

Secrets lie outside of the project's folder: what lies in it is copied, committed, and read by the
linter and by options that name files.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import msgspec

from rt.access.keyring import ROBOT_FILE, STATION_SUFFIX
from rt.errors import ConfigError

AUTO = "auto"
"""The value of `keys_dir` that leaves the place to rt."""
LEGACY = "keys"
"""The directory in the project's folder that was the default once."""
BUNDLE_SUFFIX = ".rtkey"


class KeyDirectory(msgspec.Struct, frozen=True):
    """A directory for keys.

    Attributes:
        directory: The directory, which may not exist yet.
        hint: What to do about it, a sentence; empty if nothing.
    """

    directory: Path
    hint: str = ""


def key_directory(
    option: str, instance: str, *, env: Mapping[str, str] | None = None, folder: Path | None = None
) -> KeyDirectory:
    """Where the robot of an instance keeps its keys.

    With `auto` that is ``keys`` in the project's folder if keys are there already, else
    ``INSTANCE/keys`` in the directory of `state_home`.

    Args:
        option: The option `keys_dir`: ``auto``, or a path.
        instance: The robot's name.
        env: The environment.
        folder: The project's folder; by default the working directory.
    """
    folder = folder or Path.cwd()
    if option != AUTO:
        return KeyDirectory(folder / option)
    wanted = state_home(os.environ if env is None else env) / instance / "keys"
    old = folder / LEGACY
    if not _holds_keys(old):
        return KeyDirectory(wanted)
    move = f"mkdir -p {shlex.quote(str(wanted.parent))} && mv {LEGACY} {shlex.quote(str(wanted))}"
    return KeyDirectory(
        old,
        f"{old} holds keys in the project's folder, from where they leak easily: move them with `{move}`",
    )


def state_home(env: Mapping[str, str]) -> Path:
    """The directory for the keys of all robots of this user.

    It is ``$XDG_STATE_HOME/rt``, for root ``/var/lib/rt``, else ``~/.local/state/rt``.

    A service without a HOME has systemd's ``$STATE_DIRECTORY``.

    Raises:
        ConfigError: There is none.
    """
    given = env.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return Path(given) / "rt"
    if os.geteuid() == 0:
        return Path("/var/lib/rt")
    home = env.get("HOME", "")
    service = env.get("STATE_DIRECTORY", "").partition(":")[0]
    if not home.startswith("/") and service.startswith("/"):
        return Path(service)
    try:
        return (Path(home) if home.startswith("/") else Path.home()) / ".local" / "state" / "rt"
    except RuntimeError:
        raise ConfigError(
            "there is no place for keys: set HOME or XDG_STATE_HOME, or the option keys_dir"
        ) from None


def is_secret(path: Path, directory: Path) -> bool:
    """Whether a path leads to a file of keys, through links too.

    Args:
        path: The path; the file need not exist.
        directory: The directory of the keys.
    """
    try:
        real = path.resolve()
        return _is_key_name(path) or _is_key_name(real) or real.is_relative_to(directory.resolve())
    except (OSError, RuntimeError, ValueError):
        return True  # a loop of links, or no path


def reject_secret(option: str, path: Path, directory: Path) -> None:
    """Refuse an option that names a file of keys: such a file would be quoted in errors, or written over.

    Raises:
        ConfigError: It does.
    """
    if is_secret(path, directory):
        raise ConfigError(
            f"{option} names a file of keys: choose a file outside of {directory}", option=option
        )


def find_project(path: Path) -> Path | None:
    """The project's folder or git repository that a file lies in, or None."""
    for folder in path.absolute().parents:
        if (folder / "rt.toml").exists() or (folder / ".git").exists():
            return folder
    return None


def _is_key_name(path: Path) -> bool:
    return path.name == ROBOT_FILE or path.name.endswith((STATION_SUFFIX, BUNDLE_SUFFIX))


def _holds_keys(directory: Path) -> bool:
    try:
        return any(_is_key_name(each) for each in directory.iterdir())
    except OSError:
        return False
