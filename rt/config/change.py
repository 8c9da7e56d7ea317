"""Changes what an instance keeps of its options: for `set_option` from afar, and for `rt config set` at the robot.

The rule of this module: a change is made whole or not at all, is checked with all that it lies
over, and nobody else changes anything meanwhile.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rt.config import overrides
from rt.config.load import apply_overrides
from rt.config.option import OPTIONS
from rt.config.options import Config
from rt.errors import ConfigError


def change_overrides(
    directory: Path | None,
    config: Config,
    changes: Mapping[str, Any],
    *,
    check: Callable[[overrides.OptionValues], object] = lambda _: None,
) -> overrides.OptionValues:
    """Keep some options for the next start; None takes one back, or one entry of a map.

    Blocks for as long as the disk takes.

    Args:
        directory: The instance's; see `rt.config.overrides.state_directory`.
        config: What the options lie over.
        changes: Values by option, of a map those of some of its entries.
        check: Raises if the changes may not be; called with all that would be kept, after the types
            of values were checked.

    Returns:
        All that is kept now.

    Raises:
        ConfigError: A value is wrong, somebody else is changing options right now, or the file
            cannot be written; nothing was changed.
    """
    with _turn(directory if changes else None):
        before = overrides.read(directory)
        now = _merged(before, changes)
        apply_overrides(config, now)
        check(now)
        if now != before:
            overrides.write(directory, now)
        return now


def clear_overrides(directory: Path | None) -> None:
    """Keep nothing any more, whatever the file holds.

    Raises:
        ConfigError: Somebody else is changing options right now, or the file cannot be removed;
            nothing was changed.
    """
    there = directory is not None and directory.is_dir()
    with _turn(directory if there else None):
        overrides.write(directory, {})


@contextlib.contextmanager
def _turn(directory: Path | None) -> Iterator[None]:
    """Be the only process that changes what a directory keeps."""
    if directory is None:
        yield
        return
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise overrides.write_error(directory, error) from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"somebody else is changing the options in {directory} right now: try again"
            ) from None
        except OSError as error:
            raise overrides.write_error(directory, error) from None
        yield
    finally:
        os.close(fd)


def _merged(before: overrides.OptionValues, changes: Mapping[str, Any]) -> overrides.OptionValues:
    """What is kept after a change: maps entry by entry, and without what was taken back."""
    now = dict(before)
    for name, value in changes.items():
        if value is None:
            now.pop(name, None)
        elif isinstance(value, Mapping) and name in OPTIONS and OPTIONS[name].kind == "map":
            below = now.get(name)
            entries = {
                **(below if isinstance(below, dict) else {}),
                **{str(key): each for key, each in value.items()},
            }
            now[name] = {key: each for key, each in entries.items() if each is not None}
            if not now[name]:
                del now[name]
        else:
            now[name] = value
    return now
