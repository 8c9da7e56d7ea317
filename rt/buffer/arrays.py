"""Array parameters: lists to a person, ctypes arrays in memory."""

import ctypes
from typing import Any

from rt.catalog import Parameter


def to_python(value: Any) -> Any:
    """A value as it is given to a caller: an array as a list that is its own."""
    return [to_python(item) for item in value] if isinstance(value, ctypes.Array) else value


def to_array(descriptor: Parameter, value: Any) -> Any:
    """The ctypes array that holds the elements of a sequence.

    Raises:
        TypeError: It is no sequence of the right shape.
    """
    try:
        return _fill(descriptor.platform_type, value)
    except (TypeError, IndexError) as error:
        raise TypeError(
            f"{descriptor.name} takes an array like {descriptor.platform_type.__name__}: {error}"
        ) from None


def _fill(ctype: Any, value: Any) -> Any:
    if not issubclass(ctype, ctypes.Array):
        return value
    items = [_fill(ctype._type_, item) for item in value]
    if len(items) != ctype._length_:
        raise TypeError(f"it has {ctype._length_} elements, not {len(items)}")
    return ctype(*items)
