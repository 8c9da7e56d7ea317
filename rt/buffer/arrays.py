"""Conversion of array parameters: lists in Python, ctypes arrays in memory."""

import ctypes
from typing import Any

from rt.catalog import Parameter


def to_python(value: Any) -> Any:
    """Return a value as given to callers: arrays become new lists."""
    return [to_python(item) for item in value] if isinstance(value, ctypes.Array) else value


def to_array(descriptor: Parameter, value: Any) -> Any:
    """Return the ctypes array with the elements of a sequence.

    Raises:
        TypeError: The value is not a sequence of the right shape.
    """
    try:
        return _fill(descriptor.platform_type, value)
    except (TypeError, IndexError) as error:
        raise TypeError(
            f"{descriptor.name} takes an array of type {descriptor.platform_type.__name__}: {error}"
        ) from None


def _fill(ctype: Any, value: Any) -> Any:
    if not issubclass(ctype, ctypes.Array):
        return value
    items = [_fill(ctype._type_, item) for item in value]
    if len(items) != ctype._length_:
        raise TypeError(f"expected {ctype._length_} elements, not {len(items)}")
    return ctype(*items)
