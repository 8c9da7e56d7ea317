"""The location of a robot's keys, and the detection of key files.

Keys are stored outside of the project's directory, because its files are copied, committed, linted
and named by options.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import msgspec

from rt.access.keyring import ROBOT_FILE, STATION_SUFFIX, Keyring
from rt.config import Config
from rt.config.network import open_listeners, require_keys
from rt.config.overrides import state_home
from rt.errors import ConfigError

AUTO = "auto"
"""Value of the option `keys_dir` that selects the default location."""
LEGACY = "keys"
"""Default location of earlier versions, in the project's directory."""
STATION_KEY_SUFFIX = ".rtkey"


class KeyDirectory(msgspec.Struct, frozen=True):
    """A directory for keys.

    Attributes:
        directory: The directory, which may not exist yet.
        hint: Recommended action, for the user; empty if there is none.
    """

    directory: Path
    hint: str = ""


def key_directory(
    option: str, instance: str, *, env: Mapping[str, str] | None = None, folder: Path | None = None
) -> KeyDirectory:
    """Return the key directory of a robot.

    With `auto` it is ``keys`` in the project's directory if that holds keys, else ``INSTANCE/keys``
    in the user's state directory.

    Args:
        option: Value of the option `keys_dir`: ``auto`` or a path.
        instance: Name of the robot.
        env: Environment variables; by default those of the process.
        folder: The project's directory; by default the working directory.
    """
    folder = folder or Path.cwd()
    if option != AUTO:
        return KeyDirectory(folder / option)
    wanted = keys_home(os.environ if env is None else env) / instance / "keys"
    old = folder / LEGACY
    if not _holds_keys(old):
        return KeyDirectory(wanted)
    move = f"mkdir -p {shlex.quote(str(wanted.parent))} && mv {LEGACY} {shlex.quote(str(wanted))}"
    return KeyDirectory(
        old,
        f"{old} holds keys in the project's directory, where they are easily leaked; "
        f"move them with `{move}`",
    )


def keys_home(env: Mapping[str, str]) -> Path:
    """Return the directory of the keys of this user's robots.

    It is ``$XDG_STATE_HOME/rt``, for root ``/var/lib/rt``, else ``~/.local/state/rt``. A service
    without a HOME uses systemd's ``$STATE_DIRECTORY``.

    Raises:
        ConfigError: No such directory is defined.
    """
    if (found := state_home(env, Path("/var/lib/rt"))) is not None:
        return found
    service = env.get("STATE_DIRECTORY", "").partition(":")[0]
    if service.startswith("/"):
        return Path(service)
    try:
        return Path.home() / ".local" / "state" / "rt"
    except RuntimeError:
        raise ConfigError(
            "no directory for keys; set HOME or XDG_STATE_HOME, or the option keys_dir"
        ) from None


def is_secret(path: Path, directory: Path) -> bool:
    """Return whether a path leads to a key file, also through links.

    Args:
        path: The path; the file need not exist.
        directory: The key directory.
    """
    try:
        real = path.resolve()
        return _is_key_name(path) or _is_key_name(real) or real.is_relative_to(directory.resolve())
    except (OSError, RuntimeError, ValueError):
        return True  # a loop of links, or not a path


def reject_secret(option: str, path: Path, directory: Path) -> None:
    """Refuse an option that names a key file, which could be quoted in errors or overwritten.

    Raises:
        ConfigError: The path leads to a key file.
    """
    if is_secret(path, directory):
        raise ConfigError(
            f"{option} must not name a key file; choose a file outside of {directory}",
            option=option,
        )


def require_network_keys(config: Config) -> None:
    """Check that a robot that listens on the network has keys or the option `insecure`.

    Raises:
        ConfigError: It has neither; the message says what to do.
    """
    if not config.insecure and open_listeners(config):
        keyring = Keyring(key_directory(config.keys_dir, config.instance).directory)
        keyring.refresh()
        if keyring.problems and not keyring.stations:
            raise ConfigError(keyring.problems[0])
        require_keys(config, keyring.stations)


def find_project(path: Path) -> Path | None:
    """Return the project's directory or git repository that contains a file, or None."""
    for folder in path.absolute().parents:
        if (folder / "rt.toml").exists() or (folder / ".git").exists():
            return folder
    return None


def _is_key_name(path: Path) -> bool:
    return path.name == ROBOT_FILE or path.name.endswith((STATION_SUFFIX, STATION_KEY_SUFFIX))


def _holds_keys(directory: Path) -> bool:
    try:
        return any(_is_key_name(each) for each in directory.iterdir())
    except OSError:
        return False
