"""Packs the values of an emulated device into payloads, and unpacks them.

A payload is a bitmap of parameters and their values, packed as the Smart Device protocol specifies:
ascending id, little-endian, without padding. The layout of a bitmap is computed once, because a
device sends the same ones again and again.
"""

import ctypes
import struct
from collections.abc import Mapping
from typing import Any

from rt.catalog import Parameter, Peripheral
from rt.errors import DeviceError, RemoteProtocolError
from rt.protocol.message import VALUES_MAX


class Packer:
    """Packs and unpacks the values of one type of device.

    Args:
        peripheral: The type.
    """

    def __init__(self, peripheral: Peripheral) -> None:
        self._peripheral = peripheral
        self._all_params = (1 << len(peripheral.params)) - 1
        self._layouts: dict[int, _Layout] = {}
        self._parts: dict[int, tuple[int, ...]] = {}

    def pack(self, bitmap: int, values: Mapping[str, Any]) -> list[tuple[int, bytes]]:
        """Return the payloads that carry the parameters of a bitmap, each a bitmap and its bytes.

        There is one, or as many as the length limit requires.
        """
        parts = self._parts.get(bitmap)
        if parts is None:
            parts = self._parts[bitmap] = self._split(bitmap)
        return [(part, self._layout(part).pack(values)) for part in parts]

    def unpack(self, bitmap: int, data: bytes) -> dict[str, Any]:
        """Return the values of a payload by name; an array is bytes.

        Raises:
            RemoteProtocolError: The bitmap has unknown parameters, or the length is wrong.
        """
        name = self._peripheral.name
        if bitmap & ~self._all_params:
            raise RemoteProtocolError(
                f"{name} has only {len(self._peripheral.params)} parameters", params=bitmap
            )
        layout = self._layout(bitmap)
        if layout.struct.size != len(data):
            raise RemoteProtocolError(
                f"{name}: expected {layout.struct.size} bytes of values, not {len(data)}",
                params=bitmap,
                length=len(data),
            )
        return dict(zip(layout.names, layout.struct.unpack(data), strict=True))

    def _layout(self, bitmap: int) -> "_Layout":
        layout = self._layouts.get(bitmap)
        if layout is None:
            layout = self._layouts[bitmap] = _Layout(
                [p for p in self._peripheral.params if bitmap >> p.id & 1]
            )
        return layout

    def _split(self, bitmap: int) -> tuple[int, ...]:
        parts, part, size = [], 0, 0
        for param in self._peripheral.params:
            if bitmap >> param.id & 1:
                width = ctypes.sizeof(param.platform_type)
                if part and size + width > VALUES_MAX:
                    parts.append(part)
                    part, size = 0, 0
                part |= 1 << param.id
                size += width
        return (*parts, part)


class _Layout:
    """The names and the packed format of some parameters."""

    __slots__ = ("names", "struct")

    def __init__(self, params: list[Parameter]) -> None:
        self.names = tuple(param.name for param in params)
        self.struct = struct.Struct("<" + "".join(map(_format, params)))

    def pack(self, values: Mapping[str, Any]) -> bytes:
        return self.struct.pack(*[values[name] for name in self.names])


def initial(param: Parameter) -> Any:
    """Return the initial value of a parameter: zero; for an array as many zero bytes."""
    return param.default if param.is_simple else bytes(ctypes.sizeof(param.platform_type))


def checked(param: Parameter, value: Any) -> Any:
    """Return a value for a parameter, clamped to its limits; for an array a list or its bytes.

    Raises:
        DeviceError: The value has a wrong type, or does not fit the parameter's type.
    """
    try:
        fitting = param.checked(value) if param.is_simple else _packed(param.platform_type, value)
        struct.pack("<" + _format(param), fitting)
    except (TypeError, ValueError) as error:
        raise DeviceError(str(error), param=param.name) from None
    except (OverflowError, struct.error, IndexError):
        raise DeviceError(
            f"{param.name} = {value!r} does not fit its type", param=param.name
        ) from None
    return fitting


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


def _format(param: Parameter) -> str:
    return param.format if param.is_simple else f"{ctypes.sizeof(param.platform_type)}s"
