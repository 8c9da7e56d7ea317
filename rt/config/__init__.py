"""The options of a robot, typed, and where each value comes from.

Later sources override earlier ones: defaults, rt.toml, overrides, RT_* variables, flags.
"""

from rt.config.change import change_overrides, clear_overrides
from rt.config.load import ENVIRONMENT, FILE_NAME, Loaded, apply_overrides, load
from rt.config.network import is_open, open_listeners, require_keys
from rt.config.option_info import OPTIONS, Option
from rt.config.options import Config
from rt.config.value import find_option

__all__ = [
    "ENVIRONMENT",
    "FILE_NAME",
    "OPTIONS",
    "Config",
    "Loaded",
    "Option",
    "apply_overrides",
    "change_overrides",
    "clear_overrides",
    "find_option",
    "is_open",
    "load",
    "open_listeners",
    "require_keys",
]
