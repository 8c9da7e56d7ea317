"""The values of an emulated device: initial values, and validation of given ones."""

import ctypes
from typing import Any

from rt.catalog import Parameter
from rt.errors import DeviceError


def initial(param: Parameter) -> Any:
    """Return the initial value of a parameter: zero; for an array as many zero bytes."""
    return param.default if param.is_simple else bytes(param.size)


def checked(param: Parameter, value: Any) -> Any:
    """Return a value for a parameter, clamped to its limits; for an array a list or its bytes.

    Raises:
        DeviceError: The value has a wrong type, or does not fit the parameter's type.
    """
    try:
        return param.checked(value) if param.is_simple else _packed(param.platform_type, value)
    except (TypeError, ValueError) as error:
        raise DeviceError(str(error), param=param.name) from None
    except (OverflowError, IndexError):
        raise DeviceError(
            f"{param.name} = {value!r} does not fit its type", param=param.name
        ) from None


def _packed(ctype: Any, value: Any) -> bytes:
    if isinstance(value, bytes):
        if len(value) != ctypes.sizeof(ctype):
            raise OverflowError
        return value
    return bytes(_array(ctype, value))


def _array(ctype: Any, value: Any) -> Any:
    if not issubclass(ctype, ctypes.Array):
        return value
    if not isinstance(value, list):
        raise TypeError(f"an array must be a list, not {value!r}")
    return ctype(*(_array(ctype._type_, each) for each in value))
