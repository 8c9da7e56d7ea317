"""The overrides file of an instance: options set by remote `set_option` calls or `rt config set`.

The overrides apply from the next start on. They override rt.toml, which describes how the robot is
built. Variables and flags override them, so that somebody at the machine can start the robot
without them, whatever was set remotely.

Invariant: the file is always complete and readable by its owner only. A new file is written next to
it and then renamed.
"""

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from rt.errors import ConfigError
from rt.ownership import planted_by, user

ORIGIN = "set_option"
"""Origin of an overridden value in `rt config`."""
FILE_NAME = "options.json"
MAX_BYTES = 256 << 10
"""Maximum size of the file: several thousand device names."""

OptionValues = dict[str, Any]
"""Values by option, as in rt.toml; for a map, some of its entries."""


def state_home(env: Mapping[str, str], root: Path | None = None) -> Path | None:
    """Return ``$XDG_STATE_HOME/rt``, else ``~/.local/state/rt``, or None if neither is set.

    Args:
        env: The environment.
        root: Directory of the user root if XDG_STATE_HOME is not set.
    """
    given, home = env.get("XDG_STATE_HOME", ""), env.get("HOME", "")
    if given.startswith("/"):
        return Path(given) / "rt"
    if root is not None and os.geteuid() == 0:
        return root
    return Path(home) / ".local" / "state" / "rt" if home.startswith("/") else None


def state_directory(instance: str, env: Mapping[str, str]) -> Path | None:
    """Return the directory for persistent files of an instance.

    It is named after the instance and is in systemd's ``$STATE_DIRECTORY``, else in `state_home`,
    else in ``/var/lib/rt`` if that is writable.

    Returns:
        The directory, which may not exist yet, or None if none of these places is usable.

    Examples:
        >>> state_directory("default", {"HOME": "/home/team"})
        PosixPath('/home/team/.local/state/rt/default')
    """
    given = env.get("STATE_DIRECTORY", "").partition(":")[0]
    if given.startswith("/"):
        return Path(given) / instance
    if (state := state_home(env)) is not None:
        return state / instance
    shared = Path("/var/lib/rt")
    there = shared if shared.exists() else shared.parent
    return shared / instance if os.access(there, os.W_OK | os.X_OK) else None


def read(directory: Path | None) -> OptionValues:
    """Return the overrides; empty if there is no file.

    Raises:
        ConfigError: The file cannot be read or contains something else.
    """
    if directory is None:
        return {}
    path = directory / FILE_NAME
    if (uid := planted_by(path)) is not None:
        raise _bad(path, f"belongs to {user(uid)}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return msgspec.json.decode(data, type=OptionValues)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise _bad(path, f"cannot be read ({error.strerror})") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _bad(path, "does not contain options") from None


def write(directory: Path | None, values: OptionValues) -> None:
    """Replace the overrides; an empty mapping removes the file.

    Raises:
        ConfigError: There is no place for the file, it would be too long, or it cannot be written;
            the former overrides remain.
    """
    if directory is None:
        raise ConfigError(
            "no state directory for the options; set HOME or XDG_STATE_HOME for the robot"
        )
    try:
        data = msgspec.json.format(msgspec.json.encode(values), indent=2) + b"\n"
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{ORIGIN}: {error.object!a} is not valid text; use characters that UTF-8 can encode"
        ) from None
    if len(data) > MAX_BYTES:
        # `read` would refuse a longer file, and the robot would not start.
        raise ConfigError(
            f"{ORIGIN}: the options would be longer than {MAX_BYTES >> 10} KiB; use rt.toml"
        )
    path = directory / FILE_NAME
    if (uid := planted_by(path)) is not None:
        raise ConfigError(
            f"{path} belongs to {user(uid)}, nothing was changed; remove it", file=str(path)
        )
    fresh = directory / f".{FILE_NAME}.{secrets.token_hex(4)}"
    try:
        if not values:
            path.unlink(missing_ok=True)
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(
                fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()
        _sync(directory)
    except OSError as error:
        raise write_error(directory, error) from None


def write_error(directory: Path, error: OSError) -> ConfigError:
    """Return the error of a failed write."""
    path = directory / FILE_NAME
    return ConfigError(
        f"cannot write {path}: {error.strerror}; nothing was changed", file=str(path)
    )


def _sync(directory: Path) -> None:
    """Flush directory entries to the disk, if the file system supports it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def _bad(path: Path, fault: str) -> ConfigError:
    return ConfigError(
        f"{path} {fault}; run `rt config unset --all` or remove it to start without the options set"
        " by `set_option` and `rt config set`",
        file=str(path),
    )
