"""One type of peripheral: its parameters, and its values as they are packed on the wire.

Source of the format: the Smart Device protocol. A bitmap names parameters by id (bit i is id i);
the values follow in ascending id, little-endian, without padding.
"""

import ctypes
import functools
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from rt.catalog.parameter import Parameter
from rt.errors import DeviceError, RemoteProtocolError
from rt.text import clip, closest, quote

DEFAULT_SUB_INTERVAL = 0.04


class Peripheral(msgspec.Struct, frozen=True, kw_only=True):
    """A type of peripheral, as the catalog describes it.

    Attributes:
        name: The catalog's name of the type.
        device_id: The id that Smart Devices of this type carry in their UID; None for other
            peripherals.
        sub_interval: Time between two reports of subscribed parameters (s).
        write_interval: Least time between two writes to a device (s), or None for the common one.
        heartbeat_interval: Time between two heartbeat requests that the device sends (s), or None
            if it sends none.
        params: The parameters, in order of their ids.
    """

    name: str
    device_id: int | None = None
    sub_interval: float = DEFAULT_SUB_INTERVAL
    write_interval: float | None = None
    heartbeat_interval: float | None = None
    params: tuple[Parameter, ...] = ()

    def param(self, name: str) -> Parameter:
        """The parameter of that name.

        Raises:
            DeviceError: There is none; the message names the nearest.
        """
        for param in self.params:
            if param.name == name:
                return param
        raise unknown_parameter(self, name)

    @property
    def readable(self) -> int:
        """The bitmap of readable parameters."""
        return sum(1 << param.id for param in self.params if param.readable)

    @property
    def writeable(self) -> int:
        """The bitmap of writeable parameters."""
        return sum(1 << param.id for param in self.params if param.writeable)

    @property
    def subscribed(self) -> int:
        """The bitmap of parameters that are subscribed to unless somebody asks for others."""
        return sum(1 << param.id for param in self.params if param.readable and param.subscribed)

    def bitmap(self, names: Iterable[str] | None = None) -> int:
        """The bitmap of the parameters of those names, or of all.

        Raises:
            DeviceError: A name is unknown.
        """
        if names is None:
            return (1 << len(self.params)) - 1
        return functools.reduce(lambda bits, name: bits | 1 << self.param(name).id, names, 0)

    def read_bitmap(self, names: Iterable[str] | None = None) -> int:
        """The bitmap of parameters that are to be read, of all readable ones if None.

        Raises:
            DeviceError: A name is unknown, or one cannot be read.
        """
        bitmap = self.readable if names is None else self.bitmap(names)
        mute = self.names(bitmap & ~self.readable)
        if mute:
            raise DeviceError(
                f"{self.name}.{mute[0]} is not readable", device=self.name, param=mute[0]
            )
        return bitmap

    def names(self, bitmap: int) -> list[str]:
        """The names of the parameters in a bitmap, in ascending id."""
        return [param.name for param in self.params if bitmap >> param.id & 1]

    def pack(self, values: Mapping[str, Any]) -> tuple[int, bytes]:
        """The bitmap and the bytes of some parameters' values; that of an array is a sequence.

        Raises:
            DeviceError: A name is unknown.
            TypeError: A value is of the wrong kind, or does not fit its type.
        """
        bitmap = self.bitmap(values)
        try:
            flat = [
                item
                for param in self._chosen(bitmap)
                for item in _flat(param.platform_type, values[param.name])
            ]
            data = _format(self, bitmap).pack(*flat)
        except (struct.error, OverflowError, TypeError) as error:
            raise TypeError(
                f"{dict(values)!r} does not fit the parameters of {self.name}: {error}"
            ) from None
        return bitmap, data

    def unpack(self, bitmap: int, data: bytes) -> dict[str, Any]:
        """The values by name that a bitmap and bytes carry; that of an array is a list.

        Raises:
            RemoteProtocolError: The bitmap names parameters that there are not, or the length is
                not what it asks for.
        """
        if bitmap >> len(self.params):
            raise RemoteProtocolError(
                f"a {self.name} has no parameters beyond {len(self.params)}", params=bitmap
            )
        layout = _format(self, bitmap)
        if layout.size != len(data):
            raise RemoteProtocolError(
                f"the values of a {self.name} take {layout.size} bytes, not {len(data)}",
                params=bitmap,
                length=len(data),
            )
        items = iter(layout.unpack(data))
        return {param.name: _grouped(param.platform_type, items) for param in self._chosen(bitmap)}

    def _chosen(self, bitmap: int) -> Iterator[Parameter]:
        return (param for param in self.params if bitmap >> param.id & 1)


def unknown_parameter(peripheral: Peripheral, name: str) -> DeviceError:
    """The error for a parameter that a peripheral does not have, with the nearest name that it has."""
    names = [param.name for param in peripheral.params]
    near = closest(name, names)
    hint = f"it has {', '.join(names) or 'none'}" if near is None else f"did you mean {near!r}?"
    sentence = f"{peripheral.name} has no parameter {quote(name)}: {hint}"
    return DeviceError(sentence, device=peripheral.name, param=clip(name))


@functools.lru_cache(maxsize=1024)
def _layout(formats: str) -> struct.Struct:
    return struct.Struct("<" + formats)


def _format(peripheral: Peripheral, bitmap: int) -> struct.Struct:
    return _layout("".join(param.format for param in peripheral.params if bitmap >> param.id & 1))


def _flat(ctype: Any, value: Any) -> Iterator[Any]:
    """The single values of an array in the order of the wire, or the value itself."""
    if not issubclass(ctype, ctypes.Array):
        yield value
        return
    if len(value) != ctype._length_:
        raise TypeError(f"an array has {len(value)} elements, not {ctype._length_}")
    for item in value:
        yield from _flat(ctype._type_, item)


def _grouped(ctype: Any, items: Iterator[Any]) -> Any:
    if not issubclass(ctype, ctypes.Array):
        return next(items)
    return [_grouped(ctype._type_, items) for _ in range(ctype._length_)]
