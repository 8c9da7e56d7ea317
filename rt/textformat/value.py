"""Conversion between the values of parameters in JSON and their bytes.

Invariant: a value is converted exactly or refused. Bytes that no valid value represents (NaN, a
    bool of 2, a value beyond its limits) become text in hexadecimal.
"""

import ctypes
import json
import math
import re
import struct
from collections.abc import Collection
from typing import Any, Final

from rt.catalog import packing
from rt.catalog.parameter import Parameter
from rt.catalog.peripheral import Peripheral
from rt.errors import RuntimeBaseException
from rt.text import nearest

HEX: Final = re.compile(r"([0-9A-Fa-f]{2})*")
"""The pattern of bytes in hexadecimal."""

_FLOAT: Final = struct.Struct("<f")


class TextFormatError(RuntimeBaseException):
    """A message that is not written in the text format.

    The context has its ``path``: names of fields and numbers of elements.
    """


def short_float(number: float) -> float:
    """Return the shortest decimal number with the same 4-byte float.

    >>> short_float(struct.unpack("<f", struct.pack("<f", 0.1))[0])
    0.1
    """
    if math.isfinite(number):
        for digits in range(6, 9):
            rounded = float(f"{number:.{digits}g}")
            if _fits(rounded) and _FLOAT.pack(rounded) == _FLOAT.pack(number):
                return rounded
    return number


def find_parameter(device: Peripheral, name: object, path: tuple[str | int, ...]) -> Parameter:
    """Return the parameter with a name.

    Raises:
        TextFormatError: There is none; the message suggests the nearest name.
    """
    for param in device.params:
        if param.name == name:
            return param
    known = [param.name for param in device.params]
    raise text_error(
        path, f"{device.name} has no parameter {abbreviate(name)}{suggest(name, known)}"
    )


def pack_value(param: Parameter, value: object, *, limited: bool) -> bytes:
    """Return the bytes of a value.

    Args:
        param: The parameter.
        value: The value from JSON.
        limited: Whether the value must be within the limits of the parameter, as in a write to a
            device.

    Raises:
        TextFormatError: The value has a wrong type, does not fit its type, or exceeds the limits.
    """
    if not isinstance(value, str):
        _check(param, param.platform_type, value, limited=limited)
        return packing.pack_value(param, value)
    if len(value) != 2 * param.size or not HEX.fullmatch(value):
        raise text_error(
            ("params", param.name),
            f"{param.name} as text must be its {param.size} bytes in hexadecimal, "
            f"not {abbreviate(value)}",
        )
    return bytes.fromhex(value)


def _check(param: Parameter, ctype: Any, value: object, *, limited: bool) -> None:
    if issubclass(ctype, ctypes.Array):
        if not isinstance(value, list) or len(value) != ctype._length_:
            raise _refused(param, f"a list of {ctype._length_}", value)
        for item in value:
            _check(param, ctype._type_, item, limited=limited)
        return
    if ctype is ctypes.c_bool:
        if not isinstance(value, bool):
            raise _refused(param, "true or false", value)
        return
    lower, upper = (param.lower, param.upper) if limited else (-math.inf, math.inf)
    if ctype is ctypes.c_float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not _fits(value)
            or not lower <= value <= upper
        ):
            raise _refused(param, f"a number{_range(lower, upper)}", value)
        return
    least, greatest = param._replace(ctype=ctype).type_bounds
    lower, upper = max(lower, least), min(upper, greatest)
    if type(value) is not int or not lower <= value <= upper:
        raise _refused(param, f"a whole number{_range(lower, upper)}", value)


def unpack_value(param: Parameter, data: bytes, *, limited: bool) -> Any:
    """Return the value of some bytes, or the bytes in hexadecimal if no value represents them."""
    value = shorten(packing.unpack_value(param, data))
    try:
        exact = pack_value(param, value, limited=limited) == data
    except TextFormatError:
        exact = False
    return value if exact else data.hex()


def shorten(value: Any) -> Any:
    """Return a value; floats, also in lists, with only the digits of the device's 4-byte float."""
    if isinstance(value, list):
        return [shorten(each) for each in value]
    return short_float(value) if isinstance(value, float) else value


def _fits(number: float) -> bool:
    """Return whether a number is finite as a 4-byte float."""
    try:
        return math.isfinite(_FLOAT.unpack(_FLOAT.pack(float(number)))[0])
    except OverflowError:
        return False


def _range(lower: float, upper: float) -> str:
    least, most = (
        int(each) if math.isfinite(each) and each == int(each) else each for each in (lower, upper)
    )
    if upper == math.inf:
        return " that fits 4 bytes" if lower == -math.inf else f", {least} or more"
    return f", {most} or less" if lower == -math.inf else f", {least} to {most}"


def _refused(param: Parameter, what: str, value: object) -> TextFormatError:
    return text_error(
        ("params", param.name), f"{param.name} must be {what}, not {abbreviate(value)}"
    )


def text_error(path: tuple[str | int, ...], message: str) -> TextFormatError:
    """Return the error for the part of a message at a path."""
    return TextFormatError(message, path=list(path))


def abbreviate(value: object) -> str:
    """Return a value as truncated JSON."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def suggest(word: object, words: Collection[str]) -> str:
    """Return the end of a sentence about an unknown word: the nearest known word, or all."""
    return nearest(str(word), words) or f" (known: {', '.join(words) or 'none'})"
