"""Files with secrets: written whole or not at all, readable by their owner alone."""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rt.errors import ConfigError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
MAX_BYTES = 10_000


def write_new(path: Path, comment: str, values: Mapping[str, str]) -> None:
    """Write a new TOML file of mode 0600; values are plain ASCII without quotes or backslashes.

    Raises:
        FileExistsError: There is a file of that name; it is left as it is.
        ConfigError: The file cannot be written.
    """
    text = "".join(f"# {line}\n" for line in comment.splitlines())
    text += "".join(f'{name} = "{value}"\n' for name, value in values.items())
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            os.fchmod(fd, FILE_MODE)
            os.write(fd, text.encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        # Unlike a rename, a link never replaces a file that somebody else has just made.
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", path=str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def read(path: Path, *, private: bool = True) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: The file.
        private: Whether it has to be closed to everybody but its owner.

    Raises:
        FileNotFoundError: There is none.
        ConfigError: It cannot be read, others may read it, or it is no TOML.
    """
    import tomllib  # only where there are keys: start-up time counts

    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if private and mode & 0o077:
                raise ConfigError(f"others may read {path}: close it with `chmod 600 {path}`", path=str(path))
            return tomllib.loads(file.read(MAX_BYTES).decode())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", path=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no file with a key: {error}", path=str(path)) from None


def make_directory(path: Path) -> None:
    """Make a directory of mode 0700 that version control leaves alone, unless there is one.

    Raises:
        ConfigError: It cannot be made, or is open to others.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        if not (path / ".gitignore").exists():
            # Secrets that are committed once are secrets no more.
            (path / ".gitignore").write_text("*\n")
    except OSError as error:
        raise ConfigError(f"cannot make {path} for keys: {error.strerror}", path=str(path)) from None
    check_directory(path)


def check_directory(path: Path) -> None:
    """Refuse a directory of keys that others may look into; one that does not exist is fine.

    Raises:
        ConfigError: It is none, or is open to others.
    """
    try:
        info = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path} cannot be used for keys: {error.strerror}", path=str(path)) from None
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(f"{path} should be the directory of the keys and is a file: move it away", path=str(path))
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(f"{path} holds keys and is open to others: close it with `chmod 700 {path}`", path=str(path))
