"""What may be set from afar, and what a call of set_option makes of what is kept.

The rule of this module: a call changes all that it names or nothing. Who may reach the robot, and which files it opens, is
decided at the robot only; an option that nobody has thought about cannot be set from afar.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from rt import catalog, log
from rt.config import OPTIONS, Config, change, kept, known, nearest
from rt.errors import ConfigError

ALLOWED = frozenset(
    {
        *("debug", "health_check_interval", "update_interval", "service_workers", "thread_pool_workers"),
        *("dev_catalog", "dev_name", "dev_usb_ids", "dev_baud_rate", "dev_poll_interval"),
        *("exec_module", "exec_timeout", "log_level", "log_format"),
    }
)
"""The options that may be set from afar."""

_AT_THE_ROBOT = "set it at the robot, in rt.toml or by `rt config set`"
_NETWORK = "it decides who reaches the robot"
_FILES = "it names files of the robot's computer"
_DISK = "it decides how much of the disk is used"
_SOCKETS = "it could take the locks off the robot's sockets"
_SAFETY = "it decides when devices stop"
REASONS: Mapping[str, str] = MappingProxyType(
    {
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


class OptionKeeper:
    """Answers get_option and set_option.

    Args:
        config: The options that the robot runs with.
        state: Where options are kept, or None where there is no place.
        directory: The robot's directory: files that are named from afar lie in it.
    """

    def __init__(self, config: Config, state: Path | None, directory: Path) -> None:
        self._config = config
        self._values: Mapping[str, Any] = msgspec.to_builtins(config)
        self._state = state
        self._directory = directory.resolve()
        self._lock = threading.Lock()
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

    def set(self, options: Mapping[str, Any]) -> kept.Kept:
        """Keep some options for the next start, all or none; None takes one back, or one entry of a map.

        Blocks for as long as the disk takes.

        Returns:
            All that is kept now.

        Raises:
            ConfigError: One is unknown, has a wrong value or may not be set from afar, or the file cannot be written.
        """
        with self._lock:
            for name, value in options.items():
                self._refuse(name, value)
            now = change(
                self._state, _without(self._config, options), options, check=lambda: self._check_files(options)
            )
        if options:
            self._log.info("options were set from afar; they count from the next start on", options=sorted(options))
        return now

    def _refuse(self, name: str, value: object) -> None:
        option = known(name, kept.ORIGIN)
        if option.kind == "map" and value is not None and not isinstance(value, Mapping):
            raise ConfigError(
                f'{kept.ORIGIN}: {name} is given as a map of those entries that are set, as {{"name": value}}',
                option=name,
            )
        if name not in ALLOWED:  # nor taken back: what was set at the robot stays
            default = _NETWORK if option.group == "Network" else "it is none of those that may"
            reason = REASONS.get(name, default)
            raise ConfigError(
                f"{kept.ORIGIN}: {name} cannot be set from afar, because {reason}: {_AT_THE_ROBOT}",
                option=name,
            )

    def _check_files(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            self._check_file(name, value)

    def _check_file(self, name: str, value: object) -> None:
        """Refuse a file outside of the robot's directory, and a catalog with which the robot would not start."""
        if not OPTIONS[name].is_path or not isinstance(value, str) or not value:
            return
        is_module = not value.endswith(".py") and "/" not in value and name == "exec_module"
        if is_module and all(part.isidentifier() for part in value.split(".")):
            return
        try:
            path = (self._directory / value).resolve()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{kept.ORIGIN}: {name} = {value!r} is no path: {error}", option=name) from None
        if not path.is_relative_to(self._directory):
            raise ConfigError(
                f"{kept.ORIGIN}: {name} = {value!r} cannot be set from afar, because it lies outside of {self._directory}:"
                f" {_AT_THE_ROBOT}",
                option=name,
            )
        if name == "dev_catalog":
            catalog.load(path)


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


__all__ = ["ALLOWED", "REASONS", "OptionKeeper"]
