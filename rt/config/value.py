"""Checks of single values: typed ones from rt.toml, and the text of variables and flags.

Each error names the place, the option, the value, what is allowed and the nearest choice.
"""

import math
import re
from typing import Any

import msgspec

from rt.config.option_info import OPTIONS, Option
from rt.errors import ConfigError
from rt.protocol.uid import UID_END
from rt.text import nearest, quote, shown

# One NAME:VALUE of a list; a name may contain commas and colons, such as a pattern.
_PAIR = re.compile(r"\s*(?P<name>.+?)\s*:\s*(?P<value>[^:,\s]+)\s*(?:[,\n]|$)")
PATTERN_MAX = 256
"""Maximum length of a pattern in exec_timeout; each change of the options compiles it."""

_NEAR = 0.6


def find_option(name: str, place: str) -> Option:
    """Return the option of a name.

    Raises:
        ConfigError: The option is unknown; the message names the nearest one.
    """
    if name in OPTIONS:
        return OPTIONS[name]
    hint = nearest(name, OPTIONS, cutoff=_NEAR) or "; `rt config` lists all options"
    raise ConfigError(f"{place}: unknown option {quote(name)}{hint}", option=name)


def check_value(option: Option, raw: object, place: str, *, text: bool) -> Any:
    """Return the checked value of an option that is not a map.

    Args:
        option: The option.
        raw: The value; a single string is accepted for a list of one.
        place: Place of the value.
        text: Whether every type comes as text, as in the environment.

    Raises:
        ConfigError: The value is not allowed.
    """
    if option.kind == "list" and isinstance(raw, str):
        raw = [raw]
    return _checked(option, raw, place, option.name, text=text)


def check_entry(option: Option, key: str, raw: object, place: str, *, text: bool) -> Any:
    """Return the checked value of one entry of a map.

    Raises:
        ConfigError: The name or the value of the entry is not allowed.
    """
    label = f"{option.name}.{key}"
    if option.name == "dev_name":
        if not key or key != key.strip() or not key.isprintable() or key.isdecimal():
            raise ConfigError(
                f"{place}: invalid device name {quote(key)}; use printable characters,"
                " not only digits, and no leading or trailing spaces",
                option=option.name,
            )
        raw = str(raw) if type(raw) is int else raw
    value = _checked(option, raw, place, label, text=text)
    if option.name == "dev_name" and int(value) >= UID_END:
        raise ConfigError(
            f"{place}: {label} = {shown(raw)} is too large for a UID;"
            " `rt devices` shows the UIDs of devices",
            option=option.name,
        )
    if option.name == "exec_timeout":
        _check_pattern(key, place)
    return value


def _check_pattern(pattern: str, place: str) -> None:
    """Refuse a pattern of exec_timeout that cannot be compiled or is too long."""
    if len(pattern) > PATTERN_MAX:
        raise ConfigError(
            f"{place}: pattern {quote(pattern)} of exec_timeout has {len(pattern)} characters;"
            f" at most {PATTERN_MAX} are allowed",
            option="exec_timeout",
        )
    try:
        re.compile(pattern)
    # OverflowError: a huge repeat count; RecursionError: deeply nested groups.
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"{place}: pattern {quote(pattern)} of exec_timeout is not a regular expression:"
            f" {error}",
            option="exec_timeout",
        ) from None


def parse_pairs(option: Option, raw: object, place: str) -> dict[str, str]:
    """Return the entries of a map given as text, NAME:VALUE separated by commas or line breaks.

    Raises:
        ConfigError: The text has another form.
    """
    found: dict[str, str] = {}
    for part in raw if isinstance(raw, list | tuple) else [raw]:
        position = 0
        while isinstance(part, str) and (match := _PAIR.match(part, position)):
            found[match["name"]] = match["value"]
            position = match.end()
        if not isinstance(part, str) or part[position:].strip():
            form = f"NAME:VALUE, where VALUE is {option.allowed}"
            if not place.startswith(("RT_", "--", "rt config")):
                form = f"a table; write a line [{option.name}] and below it NAME = VALUE, or {form}"
            raise ConfigError(
                f"{place}: {option.name} = {shown(part)} is not {form}", option=option.name
            )
    return found


def _checked(option: Option, raw: object, place: str, label: str, *, text: bool) -> Any:
    try:
        value = msgspec.convert(raw, option.type, strict=not text)
    except msgspec.ValidationError:
        raise _bad(option, raw, place, label) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _bad(option, raw, place, label)
    return value


def _bad(option: Option, raw: object, place: str, label: str) -> ConfigError:
    hint = nearest(raw, option.choices) if isinstance(raw, str) else ""
    if option.name == "dev_name":
        hint = "; `rt devices` shows the UIDs of devices"
    elif _number_in_quotes(option, raw, place):
        hint = "; write it without quotes"
    elif option.name == "bind" and isinstance(raw, str) and ":" in raw:
        hint = "; give the host only, port_base sets the ports"
    return ConfigError(
        f"{place}: {label} = {shown(raw)} is not {option.allowed}{hint}", option=option.name
    )


def _number_in_quotes(option: Option, raw: object, place: str) -> bool:
    if (
        option.kind not in {"number", "switch"}
        or not isinstance(raw, str)
        or place.startswith(("RT_", "--"))
    ):
        return False
    try:
        msgspec.convert(raw, option.type, strict=False)
    except msgspec.ValidationError:
        return False
    return True
