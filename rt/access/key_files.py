"""Files with secrets: written whole or not at all, readable by their owner alone."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rt.errors import ConfigError
from rt.ownership import planted_by

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
MAX_BYTES = 10_000
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What `link` says on a USB stick with FAT and its like."""


def write_new(path: Path, comment: str, values: Mapping[str, str]) -> None:
    """Write a new TOML file of mode 0600; values are plain ASCII without quotes or backslashes.

    Raises:
        FileExistsError: There is a file of that name; it is left as it is.
        ConfigError: The file cannot be written.
    """
    text = "".join(f"# {line}\n" for line in comment.splitlines())
    text += "".join(f'{name} = "{value}"\n' for name, value in values.items())
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _create(draft, text)
        try:
            # Unlike a rename, a link never replaces a file that somebody else has just made.
            os.link(draft, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _create(path, text)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", path=str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _create(path: Path, text: str) -> None:
    fd = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE
    )
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            with contextlib.suppress(PermissionError):  # a USB stick knows no modes
                os.fchmod(fd, FILE_MODE)
            file.write(text)
            file.flush()
            os.fsync(fd)
    except BaseException:
        path.unlink()
        raise


def read(path: Path, *, private: bool = True) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: The file.
        private: Whether it has to be closed to everybody but its owner, and a file: to read a pipe
            might wait for ever.

    Raises:
        FileNotFoundError: There is none.
        ConfigError: It cannot be read (the cause is the system's error), others may read it, or it
            is no TOML.
    """
    import tomllib  # only where there are keys: start-up time counts

    try:
        with open(path, "rb", opener=_open_at_once if private else None) as file:
            info = os.fstat(file.fileno())
            if private and not stat.S_ISREG(info.st_mode):
                raise ConfigError(
                    f"{path} should be the file of a key and is none: move it away", path=str(path)
                )
            if private and stat.S_IMODE(info.st_mode) & 0o077:
                raise ConfigError(
                    f"others may read {path}: close it with `chmod 600 {path}`", path=str(path)
                )
            return tomllib.loads(file.read(MAX_BYTES).decode())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    except (ValueError, RecursionError):
        # What tomllib says quotes the file.
        raise ConfigError(f"{path} is no file with a key: it is no TOML", path=str(path)) from None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def make_directory(path: Path) -> None:
    """Make a directory of mode 0700 that version control leaves alone, unless there is one.

    Raises:
        ConfigError: It cannot be made, or `check_directory` refuses it.
    """
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        was_there = path.exists()
        path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        check_directory(path)
        if not (path / ".gitignore").exists():
            # Secrets that are committed once are secrets no more.
            try:
                _create(path / ".gitignore", "*\n")
            except FileExistsError:
                pass  # of another `rt keys new`
            except OSError:
                if not was_there:
                    with contextlib.suppress(OSError):
                        path.rmdir()
                raise
    except OSError as error:
        raise ConfigError(
            f"cannot make {path} for keys: {error.strerror}", path=str(path)
        ) from None


def check_directory(path: Path) -> None:
    """Refuse a directory of keys that others may look into, or we may not; one that does not exist is fine.

    Raises:
        ConfigError: It is none, is open to others, or is not ours to read.
    """
    try:
        info = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be used for keys: {error.strerror}", path=str(path)
        ) from None
    owner = info.st_uid if info.st_uid not in {0, os.geteuid()} else planted_by(path)
    if owner is not None:
        raise ConfigError(
            f"{path} holds keys and belongs to another user (uid {owner}): start rt as that user, or `chown` it",
            path=str(path),
        )
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(
            f"{path} should be the directory of the keys and is a file: move it away",
            path=str(path),
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(
            f"{path} holds keys and is open to others: close it with `chmod 700 {path}`",
            path=str(path),
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise ConfigError(
            f"{path} holds keys and belongs to another user (uid {info.st_uid}): start rt as that user, or `chown` it",
            path=str(path),
        )
