"""Changes of an instance's overrides, for remote `set_option` calls and for `rt config set`.

Invariant: a change is atomic, is checked together with the options below it, and excludes
concurrent changes.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rt.config import overrides
from rt.config.load import apply_overrides
from rt.config.option_info import OPTIONS
from rt.config.options import Config
from rt.errors import ConfigError


def change_overrides(
    directory: Path | None,
    config: Config,
    changes: Mapping[str, Any],
    *,
    check: Callable[[overrides.OptionValues], object] = lambda _: None,
) -> overrides.OptionValues:
    """Override some options from the next start on; None removes an override, or one map entry.

    Blocks while the disk is written.

    Args:
        directory: State directory of the instance; see `rt.config.overrides.state_directory`.
        config: The options below the overrides.
        changes: Values by option; for a map, the entries to change.
        check: Called with the resulting overrides after their types were checked; raises to refuse
            the change.

    Returns:
        All overrides after the change.

    Raises:
        ConfigError: A value is wrong, another process is changing the options, or the file cannot
            be written; nothing was changed.
    """
    with _locked(directory if changes else None):
        before = overrides.read(directory)
        now = _merged(before, changes)
        apply_overrides(config, now)
        check(now)
        if now != before:
            overrides.write(directory, now)
        return now


def clear_overrides(directory: Path | None) -> None:
    """Remove all overrides, even if the file is damaged.

    Raises:
        ConfigError: Another process is changing the options, or the file cannot be removed; nothing
            was changed.
    """
    exists = directory is not None and directory.is_dir()
    with _locked(directory if exists else None):
        overrides.write(directory, {})


@contextlib.contextmanager
def _locked(directory: Path | None) -> Iterator[None]:
    """Exclude other processes from changing the overrides in a directory."""
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
                f"another process is changing the options in {directory}; try again"
            ) from None
        except OSError as error:
            raise overrides.write_error(directory, error) from None
        yield
    finally:
        os.close(fd)


def _merged(before: overrides.OptionValues, changes: Mapping[str, Any]) -> overrides.OptionValues:
    """Return the overrides after a change; maps are merged entry by entry."""
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
