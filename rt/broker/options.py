"""What may be set from afar, and what a call of set_option makes of what is kept.

The rule of this module: a call changes all that it names or nothing. Who may reach the robot, and
which files it opens, is decided at the robot only, and nothing that is set from afar hides what was
done; an option that nobody has thought about cannot be set from afar. No error quotes a file.
"""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from rt import log
from rt.access.key_directory import is_secret, key_directory
from rt.config import OPTIONS, Config, change_overrides, find_option, nearest, overrides
from rt.config.network import open_listeners
from rt.errors import ConfigError
from rt.log.throttle import Bucket
from rt.remote.caller import Caller, caller

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
"""The options that may be set from afar."""

LOCAL_ONLY = frozenset({"exec_timeout"})
"""Those of them that the robot's user may set, but no station: they decide how long code may run, and so when devices stop."""

POLL_INTERVAL_MAX = 0.1
"""The most (s) that a station may set `dev_poll_interval` to: a command to stand still may wait for so long."""

ENTRIES_MAX: Mapping[str, int] = MappingProxyType({"dev_name": 256, "exec_timeout": 32})
"""The most entries of a map that may be kept from afar: each later change checks all of them anew, and answers with them."""

_AT_THE_ROBOT = "set it at the robot, in rt.toml or by `rt config set`"
_NETWORK = "it decides who reaches the robot"
_FILES = "it names files of the robot's computer"
_LOG = "it decides what is seen of the log at the robot"
_DISK = "it decides how much of the disk is used"
_SOCKETS = "it could take the locks off the robot's sockets"
_SAFETY = "it decides when devices stop"
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "dev_catalog": _FILES,
        "log_format": _LOG,
        "instance": "what is set is kept under this name",
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
"""Why some may not."""

CALLS_BURST = 16
"""Calls in which a station may set options at once."""
CALL_INTERVAL = 1.0
"""Time (s) in which a station may set options once more after that."""

LOG_LEVELS = ("debug", "info")
"""The values of `log_level` that may be set from afar: others would hide what is done from afar, and why motion stops."""


class Overrides:
    """Answers get_option and set_option.

    Args:
        config: The options that the robot runs with.
        state: Where options are kept, or None where there is no place.
        directory: The robot's directory: files that are named from afar lie in it.
    """

    def __init__(self, config: Config, state: Path | None, directory: Path) -> None:
        self._config = config
        self._values: Mapping[str, Any] = msgspec.to_builtins(config)
        self._is_insecure = config.insecure and bool(open_listeners(config))
        self._state = state
        self._directory = directory.resolve()
        self._keys = key_directory(config.keys_dir, config.instance, folder=directory).directory
        self._lock = threading.Lock()
        self._changes: dict[str, Bucket] = {}
        self._log = log.get_logger()

    def get(self, name: str | None = None) -> Any:
        """The value that the robot runs with: of all options by name, of one, or of one entry of a map as ``dev_name.arm``.

        Raises:
            ConfigError: There is no such option or entry; the message names the nearest.
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
        raise ConfigError(f"there is no option {name!r}{nearest(name, self._values)}", option=name)

    def set(self, options: Mapping[str, Any]) -> overrides.OptionValues:
        """Keep some options for the next start, all or none; None takes one back, or one entry of a map.

        Blocks for as long as the disk takes.

        Returns:
            All that is kept now.

        Raises:
            ConfigError: One is unknown, has a wrong value or may not be set from afar, a station
                sets options too often, or the file cannot be written.
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
                "options were set from afar; they count from the next start on",
                options=sorted(options),
                by=_name(caller()),
            )
        return now

    def _limit_calls(self) -> None:
        """Bound how often a station sets options: each change is logged and written."""
        if not caller().may_be_remote(insecure=self._is_insecure):
            return
        now = time.monotonic()
        bucket = self._changes.setdefault(caller().station, Bucket(CALLS_BURST, CALL_INTERVAL, now))
        if bucket.refill(now) < 1:
            raise ConfigError(
                f"{overrides.ORIGIN}: this station sets options too often: set them in one call, or one each {CALL_INTERVAL:g} s"
            )
        bucket.tokens -= 1

    def _refuse(self, name: str, value: object) -> None:
        option = find_option(name, overrides.ORIGIN)
        if option.kind == "map" and value is not None and not isinstance(value, Mapping):
            raise ConfigError(
                f'{overrides.ORIGIN}: {name} is given as a map of those entries that are set, as {{"name": value}}',
                option=name,
            )
        if name in LOCAL_ONLY and caller().may_be_remote(insecure=self._is_insecure):
            raise ConfigError(
                f"{overrides.ORIGIN}: {name} cannot be set by a station, because {_SAFETY}: {_AT_THE_ROBOT}",
                option=name,
            )
        if name not in ALLOWED:  # nor taken back: what was set at the robot stays
            default = _NETWORK if option.group == "Network" else "it is none of those that may"
            reason = REASONS.get(name, default)
            raise ConfigError(
                f"{overrides.ORIGIN}: {name} cannot be set from afar, because {reason}: {_AT_THE_ROBOT}",
                option=name,
            )

    def _check(self, options: Mapping[str, Any], now: overrides.OptionValues) -> None:
        level = options.get("log_level")
        if level is not None and level not in LOG_LEVELS:
            raise ConfigError(
                f"{overrides.ORIGIN}: log_level = {level!r} cannot be set from afar, because it would hide events: allowed are"
                f" {' and '.join(LOG_LEVELS)}; {_AT_THE_ROBOT}",
                option="log_level",
            )
        interval = options.get("dev_poll_interval")
        if (
            interval is not None
            and interval > POLL_INTERVAL_MAX
            and caller().may_be_remote(insecure=self._is_insecure)
        ):
            raise ConfigError(
                f"{overrides.ORIGIN}: dev_poll_interval = {interval} s cannot be set by a station, because {_SAFETY}: at most"
                f" {POLL_INTERVAL_MAX} s is possible; {_AT_THE_ROBOT}",
                option="dev_poll_interval",
            )
        self._check_module(options.get("exec_module"))
        for name, most in ENTRIES_MAX.items():
            adds = any(value is not None for value in (options.get(name) or {}).values())
            if adds and len(now[name]) > most:
                raise ConfigError(
                    f"{overrides.ORIGIN}: {name} would have {len(now[name])} entries: at most {most} can be set from afar;"
                    f" {_AT_THE_ROBOT}",
                    option=name,
                )

    def _check_module(self, value: object) -> None:
        """Refuse a file outside of the robot's directory, and one that is no code: errors of the linter quote what it holds."""
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
            raise ConfigError(
                f"{overrides.ORIGIN}: exec_module = {value!r} is no path: {error}",
                option="exec_module",
            ) from None
        if secret:
            why = "it is a file of keys"
        elif not path.is_relative_to(self._directory):
            why = f"it lies outside of {self._directory}"
        elif path.suffix != ".py":
            why = "it is neither a module's name nor a .py file"
        else:
            return
        raise ConfigError(
            f"{overrides.ORIGIN}: exec_module = {value!r} cannot be set from afar, because {why}: {_AT_THE_ROBOT}",
            option="exec_module",
        )


def _name(by: Caller) -> str:
    """Who calls, for the log."""
    return by.station or by.peer.decode(errors="backslashreplace")


def _without(config: Config, options: Mapping[str, Any]) -> Config:
    """The options that the robot has, but for entries of maps that are taken back: their names and UIDs are free."""
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


__all__ = ["ALLOWED", "LOG_LEVELS", "REASONS", "Overrides"]
