"""Reading and writing of key files. Invariant: writes are atomic, and only the owner can read."""

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
"""Errors of `link` on file systems without hard links, such as FAT."""


def write_new(path: Path, comment: str, values: Mapping[str, str]) -> None:
    """Write a new TOML file of mode 0600; values must be ASCII without quotes or backslashes.

    Raises:
        FileExistsError: The file exists; it is not changed.
        ConfigError: The file cannot be written.
    """
    text = "".join(f"# {line}\n" for line in comment.splitlines())
    text += "".join(f'{name} = "{value}"\n' for name, value in values.items())
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _create(draft, text)
        try:
            # Unlike a rename, a link never replaces an existing file.
            os.link(draft, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _create(path, text)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", path=str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _create(path: Path, text: str) -> None:
    fd = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE
    )
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            with contextlib.suppress(PermissionError):  # FAT has no file modes
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
        private: Whether the file must be a regular file that only its owner can read. Reading a
            pipe could block.

    Raises:
        FileNotFoundError: The file does not exist.
        ConfigError: The file cannot be read (the cause is the OSError), is readable by others, or
            is not TOML.
    """
    import tomllib  # not at module level, because start-up time counts

    try:
        with open(path, "rb", opener=_open_at_once if private else None) as file:
            info = os.fstat(file.fileno())
            if private and not stat.S_ISREG(info.st_mode):
                raise ConfigError(
                    f"{path} is not a regular file; remove or rename it", path=str(path)
                )
            if private and stat.S_IMODE(info.st_mode) & 0o077:
                raise ConfigError(
                    f"{path} is accessible to other users; run `chmod 600 {path}`", path=str(path)
                )
            return tomllib.loads(file.read(MAX_BYTES).decode())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", path=str(path)) from error
    except (ValueError, RecursionError):
        # tomllib's message may quote a secret.
        raise ConfigError(f"{path} is not a key file: invalid TOML", path=str(path)) from None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def make_directory(path: Path) -> None:
    """Create a directory of mode 0700 with a `.gitignore`, if it does not exist.

    Raises:
        ConfigError: The directory cannot be created, or `check_directory` refuses it.
    """
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        was_there = path.exists()
        path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        check_directory(path)
        if not (path / ".gitignore").exists():
            # Keeps the secrets out of version control.
            try:
                _create(path / ".gitignore", "*\n")
            except FileExistsError:
                pass  # created by a concurrent `rt keys new`
            except OSError:
                if not was_there:
                    with contextlib.suppress(OSError):
                        path.rmdir()
                raise
    except OSError as error:
        raise ConfigError(
            f"cannot create key directory {path}: {error.strerror}", path=str(path)
        ) from None


def check_directory(path: Path) -> None:
    """Check type, owner and mode of a key directory; a missing directory is accepted.

    Raises:
        ConfigError: The path is not a directory, is accessible to other users, belongs to another
            user, or cannot be read.
    """
    try:
        info = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"cannot use key directory {path}: {error.strerror}", path=str(path)
        ) from None
    owner = info.st_uid if info.st_uid not in {0, os.geteuid()} else planted_by(path)
    if owner is not None:
        raise _belongs_to(path, owner)
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(
            f"key directory {path} is not a directory; remove or rename it", path=str(path)
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(
            f"key directory {path} is accessible to other users; run `chmod 700 {path}`",
            path=str(path),
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise _belongs_to(path, info.st_uid)


def _belongs_to(path: Path, uid: int) -> ConfigError:
    return ConfigError(
        f"key directory {path} belongs to another user (uid {uid}); "
        "run rt as that user, or chown the directory",
        path=str(path),
    )
