"""The remote methods `get_option` and `set_option`, and which options they may change.

Invariant: a call changes all options that it names or none. Only somebody at the robot decides who
may reach it and which files it opens, and no remote change hides what was done. An option that is
not in `ALLOWED` cannot be set remotely. No error quotes a file.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from rt import log
from rt.access.key_directory import is_secret, key_directory
from rt.config import Config, change_overrides, find_option, overrides
from rt.config.network import open_listeners
from rt.config.option_info import OPTIONS
from rt.errors import ConfigError
from rt.log.throttle import Bucket
from rt.remote.caller import Caller, caller
from rt.text import nearest

ALLOWED = frozenset(
    {
        *(
            "debug",
            "health_check_interval",
            "update_interval",
            "service_workers",
            "thread_pool_workers",
        ),
        *("dev_name", "dev_usb_ids", "dev_baud_rate", "dev_poll_interval"),
        *("exec_module", "exec_timeout", "log_level"),
    }
)
"""Options that may be set remotely."""

LOCAL_ONLY = frozenset({"exec_timeout"})
"""Allowed options that the robot's user may set, but no station, because devices stop by them."""

POLL_INTERVAL_MAX = 0.1
"""Maximum of `dev_poll_interval` (s) for a station; a command to stop may wait this long."""

ENTRIES_MAX: Mapping[str, int] = MappingProxyType({"dev_name": 256, "exec_timeout": 32})
"""Maximum number of entries of a map; each later change checks and returns all of them."""

_AT_THE_ROBOT = "set it at the robot, in rt.toml or by `rt config set`"
_NETWORK = "it decides who reaches the robot"
_FILES = "it names files of the robot's computer"
_LOG = "it decides what is seen of the log at the robot"
_DISK = "it decides how much of the disk is used"
_SOCKETS = "it could disable the security of the robot's sockets"
_SAFETY = "it decides when devices stop"
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "dev_catalog": _FILES,
        "log_format": _LOG,
        "instance": "the overrides belong to this name",
        "dev_ports": _FILES,
        "dev_vsd_addr": _NETWORK,
        "log_frontend": _NETWORK,
        "log_backend": _NETWORK,
        "log_file": _FILES,
        "log_file_size": _DISK,
        "log_file_count": _DISK,
        "dev_ports_denied": _FILES,
        "client_option": _SOCKETS,
        "service_option": _SOCKETS,
        "exec_cutoffs": _SAFETY,
        "teleop_needs_gamepad": _SAFETY,
    }
)
"""Why an option cannot be set remotely."""

CALLS_BURST = 16
"""Number of `set_option` calls that a station may make at once."""
CALL_INTERVAL = 1.0
"""Time (s) after which a station may make one more call."""

LOG_LEVELS = ("debug", "info")
"""Remote values of `log_level`; others would hide remote changes and why motion stops."""


class Overrides:
    """The implementation of `get_option` and `set_option`.

    Args:
        config: The options of the running robot.
        state: Directory of the overrides, or None if there is none.
        directory: Directory of the robot, which must contain files named remotely.
        clock: Returns the time (s), from any thread.
    """

    def __init__(
        self,
        config: Config,
        state: Path | None,
        directory: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._clock = clock
        self._values: Mapping[str, Any] = msgspec.to_builtins(config)
        self._is_insecure = config.insecure and bool(open_listeners(config))
        self._state = state
        self._directory = directory.resolve()
        self._keys = key_directory(config.keys_dir, config.instance, folder=directory).directory
        self._lock = threading.Lock()
        self._changes: dict[str, Bucket] = {}
        self._log = log.get_logger()

    def get(self, name: str | None = None) -> Any:
        """Return all current options by name, one option, or a map entry such as ``dev_name.arm``.

        Raises:
            ConfigError: The option or entry does not exist; the message names the nearest one.
        """
        if name is None:
            return self._values
        if name in self._values:
            return self._values[name]
        option, dot, key = name.partition(".")
        values = self._values.get(option)
        if dot and isinstance(values, dict):
            if key in values:
                return values[key]
            raise ConfigError(f"{option} has no entry {key!r}{nearest(key, values)}", option=option)
        raise ConfigError(f"unknown option {name!r}{nearest(name, self._values)}", option=name)

    def set(self, options: Mapping[str, Any]) -> overrides.OptionValues:
        """Override options from the next start on, all or none; None removes an override or entry.

        Blocks while the disk is written.

        Returns:
            All overrides after the change.

        Raises:
            ConfigError: An option is unknown, has a wrong value or cannot be set remotely, a
                station sets options too often, or the file cannot be written.
        """
        with self._lock:
            for name, value in options.items():
                self._refuse(name, value)
            self._limit_calls()
            before = overrides.read(self._state)
            now = change_overrides(
                self._state,
                _without(self._config, options),
                options,
                check=lambda now: self._check(options, now),
            )
        if now != before:
            self._log.warning(
                "options set remotely",
                options=sorted(options),
                by=_name(caller()),
                effective="at the next start",
            )
        return now

    def _limit_calls(self) -> None:
        """Limit how often a station sets options, because each change is logged and written."""
        if not self._may_be_remote():
            return
        now = self._clock()
        bucket = self._changes.setdefault(caller().station, Bucket(CALLS_BURST, CALL_INTERVAL, now))
        if bucket.refill(now) < 1:
            raise ConfigError(
                f"{overrides.ORIGIN}: this station sets options too often; set them in one call, or"
                f" wait {CALL_INTERVAL:g} s"
            )
        bucket.tokens -= 1

    def _refuse(self, name: str, value: object) -> None:
        option = find_option(name, overrides.ORIGIN)
        if option.kind == "map" and value is not None and not isinstance(value, Mapping):
            raise _error(
                name, 'must be a map of the entries to change, such as {"name": value}', end=""
            )
        if name in LOCAL_ONLY and self._may_be_remote():
            raise _error(name, f"cannot be set by a station, because {_SAFETY}")
        if name not in ALLOWED:  # nor removed: what was set at the robot stays
            default = _NETWORK if option.group == "Network" else "it is not in the list of these"
            raise _error(name, f"cannot be set remotely, because {REASONS.get(name, default)}")

    def _check(self, options: Mapping[str, Any], now: overrides.OptionValues) -> None:
        level = options.get("log_level")
        if level is not None and level not in LOG_LEVELS:
            raise _error(
                "log_level",
                f"= {level!r} cannot be set remotely, because it would hide events;"
                f" use {' or '.join(LOG_LEVELS)}",
                end=f", or {_AT_THE_ROBOT}",
            )
        interval = options.get("dev_poll_interval")
        if interval is not None and interval > POLL_INTERVAL_MAX and self._may_be_remote():
            raise _error(
                "dev_poll_interval",
                f"= {interval} s cannot be set by a station, because {_SAFETY};"
                f" use at most {POLL_INTERVAL_MAX} s",
                end=f", or {_AT_THE_ROBOT}",
            )
        self._check_module(options.get("exec_module"))
        for name, most in ENTRIES_MAX.items():
            adds = any(value is not None for value in (options.get(name) or {}).values())
            if adds and len(now[name]) > most:
                raise _error(
                    name,
                    f"would have {len(now[name])} entries, but at most {most} can be set remotely",
                )

    def _check_module(self, value: object) -> None:
        """Refuse files outside of the robot's directory and files other than code.

        Errors of the linter quote the file.
        """
        if not isinstance(value, str):
            return
        is_module = all(part.isidentifier() for part in value.split("."))
        try:
            named = self._directory / value
            path = (
                self._directory / f"{value.replace('.', '/')}.py" if is_module else named
            ).resolve()
            secret = is_secret(named, self._keys) or is_secret(path, self._keys)
        except (OSError, ValueError, RuntimeError) as error:
            raise _error("exec_module", f"= {value!r} is not a path: {error}", end="") from None
        if secret:
            why = "it is a key file"
        elif not path.is_relative_to(self._directory):
            why = f"it is outside of {self._directory}"
        elif path.suffix != ".py":
            why = "it is neither a module name nor a .py file"
        else:
            return
        raise _error("exec_module", f"= {value!r} cannot be set remotely, because {why}")

    def _may_be_remote(self) -> bool:
        """Return whether the caller may be a station."""
        return caller().may_be_remote(insecure=self._is_insecure)


def _error(option: str, fault: str, *, end: str = f"; {_AT_THE_ROBOT}") -> ConfigError:
    return ConfigError(f"{overrides.ORIGIN}: {option} {fault}{end}", option=option)


def _name(by: Caller) -> str:
    """Return the name of a caller for the log."""
    return by.station or by.peer.decode(errors="backslashreplace")


def _without(config: Config, options: Mapping[str, Any]) -> Config:
    """Return the options without the map entries that a change removes.

    Their names and UIDs can be used again in the same change.
    """
    changes = {
        name: {
            key: each
            for key, each in getattr(config, name).items()
            if value is not None and value.get(key, 0) is not None
        }
        for name, value in options.items()
        if OPTIONS[name].kind == "map" and (value is None or isinstance(value, Mapping))
    }
    return msgspec.structs.replace(config, **changes)
