"""Every option once, typed, and where each value came from: defaults < rt.toml < set_option < RT_* < flags."""

from rt.config.change import change, forget
from rt.config.load import ENVIRONMENT, FILE_NAME, Loaded, load, set_over
from rt.config.network import is_open, opened, require_keys
from rt.config.option import OPTIONS, Option
from rt.config.options import Config
from rt.config.value import known
from rt.text import nearest

__all__ = [
    "ENVIRONMENT",
    "FILE_NAME",
    "OPTIONS",
    "Config",
    "Loaded",
    "Option",
    "change",
    "forget",
    "is_open",
    "known",
    "load",
    "nearest",
    "opened",
    "require_keys",
    "set_over",
]
