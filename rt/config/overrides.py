"""Options that were set from afar, or by `rt config set`: kept in a file of the instance, and laid over rt.toml at the next start.

The file lies between rt.toml and the variables. It goes before rt.toml, which says how the robot is
built, because it is the later word of whoever drives it. It stands back behind variables and flags,
because those are given by somebody at the machine for one start: whatever was set from afar, the
robot can be started without it.

The rule of this module: the file is always whole. It is written beside and put in its place,
readable by its owner only.
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
"""What `rt config` shows as the origin of such a value."""
FILE_NAME = "options.json"
MAX_BYTES = 256 << 10
"""How long the file may be: some thousand names of devices."""

OptionValues = dict[str, Any]
"""Values by option, of a map those of some of its entries; as in rt.toml."""


def state_directory(instance: str, env: Mapping[str, str]) -> Path | None:
    """Where an instance keeps what outlives it.

    It is ``NAME`` in systemd's ``$STATE_DIRECTORY``, else in ``$XDG_STATE_HOME/rt``, else in
    ``~/.local/state/rt``, else in ``/var/lib/rt`` where we may write there.

    Returns:
        The directory, which may not exist yet; None where there is no place for it.

    Examples:
        >>> state_directory("default", {"HOME": "/home/team"})
        PosixPath('/home/team/.local/state/rt/default')
    """
    given = env.get("STATE_DIRECTORY", "").partition(":")[0]
    if given.startswith("/"):
        return Path(given) / instance
    state = env.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state) / "rt" / instance
    home = env.get("HOME", "")
    if home.startswith("/"):
        return Path(home) / ".local" / "state" / "rt" / instance
    shared = Path("/var/lib/rt")
    there = shared if shared.exists() else shared.parent
    return shared / instance if os.access(there, os.W_OK | os.X_OK) else None


def read(directory: Path | None) -> OptionValues:
    """What is kept; empty where there is no file.

    Raises:
        ConfigError: The file cannot be read or holds something else; the message names the remedy.
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
        raise _bad(path, f"cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _bad(path, "does not hold options") from None


def write(directory: Path | None, kept: OptionValues) -> None:
    """Keep these options instead of what was kept before; none at all removes the file.

    Raises:
        ConfigError: There is no place for the file, it would be too long, or it cannot be written;
            what was kept before stays.
    """
    if directory is None:
        raise ConfigError(
            "there is no place where options could be kept: set HOME or XDG_STATE_HOME for the robot"
        )
    try:
        data = msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n"
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{ORIGIN}: {error.object!a} holds bytes that are no text: write it otherwise"
        ) from None
    if len(data) > MAX_BYTES:
        # What is longer would not be read at the next start, and the robot would not start.
        raise ConfigError(
            f"{ORIGIN}: all that is set would be longer than {MAX_BYTES >> 10} KiB: set it in rt.toml"
        )
    path = directory / FILE_NAME
    if (uid := planted_by(path)) is not None:
        raise ConfigError(
            f"{path} belongs to {user(uid)}: remove it; nothing was changed", file=str(path)
        )
    fresh = directory / f".{FILE_NAME}.{secrets.token_hex(4)}"
    try:
        if not kept:
            path.unlink(missing_ok=True)
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(
                fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor that was opened for us alone
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
    """The error of a file that cannot be written."""
    path = directory / FILE_NAME
    return ConfigError(
        f"{path} cannot be written: {error.strerror}; nothing was changed", file=str(path)
    )


def _sync(directory: Path) -> None:
    """Have the name of a file on the disk too, where the file system knows that."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def _bad(path: Path, fault: str) -> ConfigError:
    return ConfigError(
        f"{path}, where options are kept that were set from afar or by `rt config set`, {fault}: remove it to start without"
        " them, as by `rt config unset --all`",
        file=str(path),
    )
