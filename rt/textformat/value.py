"""The values of parameters as a person writes them, and the bytes that travel.

What is written travels exactly as written, or is refused. A value that no number of the catalog
stands for (NaN, a bool of 2, beyond the limits of what may be written) is a text of its bytes in
hexadecimal.
"""

import ctypes
import json
import math
import re
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rt.catalog.parameter import Parameter
from rt.catalog.peripheral import Peripheral
from rt.errors import RuntimeBaseException
from rt.text import closest

HEX: Final = re.compile(r"([0-9A-Fa-f]{2})*")
"""Bytes in hexadecimal."""

_FLOAT: Final = struct.Struct("<f")


class TextFormatError(RuntimeBaseException):
    """A message is not written as one; ``path`` of the context leads to the place (names of fields, numbers of elements)."""


def short_float(number: float) -> float:
    """The number with the fewest decimals that is the same 4-byte float.

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
    """The parameter of that name.

    Raises:
        NotationError: There is none; the message names the nearest.
    """
    for param in device.params:
        if param.name == name:
            return param
    known = [param.name for param in device.params]
    raise wrong(path, f"{device.name} has no parameter {short(name)}{hint(name, known)}")


def pack_value(param: Parameter, value: object, *, limited: bool) -> bytes:
    """The bytes of a parameter's value.

    Args:
        param: Which parameter.
        value: As of JSON.
        limited: Whether it has to be within the parameter's limits, as what is written to a device
            has.

    Raises:
        NotationError: It is of another kind, does not fit its bytes, or is beyond the limits.
    """
    size = ctypes.sizeof(param.platform_type)
    if not isinstance(value, str):
        return _packed(param, param.platform_type, value, limited=limited)
    if len(value) != 2 * size or not HEX.fullmatch(value):
        raise wrong(
            ("params", param.name),
            f"{param.name} as a text has to be its {size} bytes in hexadecimal, not {short(value)}",
        )
    return bytes.fromhex(value)


def _packed(param: Parameter, ctype: Any, value: object, *, limited: bool) -> bytes:
    if issubclass(ctype, ctypes.Array):
        if not isinstance(value, list) or len(value) != ctype._length_:
            raise _refused(param, f"a list of {ctype._length_}", value)
        return b"".join(_packed(param, ctype._type_, item, limited=limited) for item in value)
    if ctype is ctypes.c_bool:
        if not isinstance(value, bool):
            raise _refused(param, "true or false", value)
        return bytes((value,))
    lower, upper = (param.lower, param.upper) if limited else (-math.inf, math.inf)
    if ctype is ctypes.c_float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not _fits(value)
            or not lower <= value <= upper
        ):
            raise _refused(param, f"a number{_range(lower, upper)}", value)
        return _FLOAT.pack(value)
    bits, signed = 8 * ctypes.sizeof(ctype), ctype(-1).value < 0
    lower = max(lower, -(1 << bits - 1) if signed else 0)
    upper = min(upper, (1 << bits - signed) - 1)
    if type(value) is not int or not lower <= value <= upper:
        raise _refused(param, f"a whole number{_range(lower, upper)}", value)
    return value.to_bytes(bits // 8, "little", signed=signed)


def unpack_value(param: Parameter, data: bytes, *, limited: bool) -> Any:
    """The value of a parameter's bytes; these themselves if there is no value that stands for exactly them."""
    value = _plain(param.platform_type.from_buffer_copy(data))
    try:
        exact = pack_value(param, value, limited=limited) == data
    except TextFormatError:
        exact = False
    return value if exact else data.hex()


def _plain(item: Any) -> Any:
    if isinstance(item, ctypes.Array):
        return [_plain(each) for each in item]
    value = getattr(item, "value", item)
    return short_float(value) if isinstance(value, float) else value


def _fits(number: float) -> bool:
    """Whether a number is finite as 4 bytes."""
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
    return wrong(("params", param.name), f"{param.name} has to be {what}, not {short(value)}")


def wrong(path: tuple[str | int, ...], message: str) -> TextFormatError:
    """The error for what a path leads to."""
    return TextFormatError(message, path=list(path))


def short(value: object) -> str:
    """A value as it stands in JSON, cut short."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def hint(word: object, words: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the nearest that there is, or all."""
    known: Sequence[str] = list(words)
    near = closest(str(word), known)
    return f" (known: {', '.join(known) or 'none'})" if near is None else f": did you mean {near}?"
