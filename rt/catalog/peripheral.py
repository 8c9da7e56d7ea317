"""One type of peripheral, as the catalog describes it."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from rt.catalog.packing import Packing
from rt.catalog.parameter import Parameter
from rt.errors import DeviceError, RemoteProtocolError
from rt.text import clip, nearest, quote

DEFAULT_SUB_INTERVAL = 0.04


class Peripheral(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A type of peripheral.

    Attributes:
        name: The name of the type in the catalog.
        device_id: The id in the UIDs of Smart Devices of this type; None for other peripherals.
        sub_interval: The interval (s) between two reports of subscribed parameters.
        write_interval: The minimum interval (s) between two writes to a device, or None for the
            default.
        heartbeat_interval: The interval (s) between two heartbeat requests from the device, or None
            if it sends none.
        params: The parameters in order of their ids.
    """

    name: str
    device_id: int | None = None
    sub_interval: float = DEFAULT_SUB_INTERVAL
    write_interval: float | None = None
    heartbeat_interval: float | None = None
    params: tuple[Parameter, ...] = ()

    def param(self, name: str) -> Parameter:
        """Return the parameter with a name.

        Raises:
            DeviceError: There is none; the message suggests the nearest name.
        """
        for param in self.params:
            if param.name == name:
                return param
        raise unknown_parameter(self, name)

    @functools.cached_property
    def packing(self) -> Packing:
        """The layout of packed values."""
        return Packing(self.params)

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
        """The bitmap of parameters that are subscribed by default."""
        return sum(1 << param.id for param in self.params if param.readable and param.subscribed)

    def bitmap(self, names: Iterable[str] | None = None) -> int:
        """Return the bitmap of the parameters with these names, or of all.

        Raises:
            DeviceError: A name is unknown.
        """
        if names is None:
            return (1 << len(self.params)) - 1
        return functools.reduce(lambda bits, name: bits | 1 << self.param(name).id, names, 0)

    def read_bitmap(self, names: Iterable[str] | None = None) -> int:
        """Return the bitmap of the parameters to read, or of all readable ones.

        Raises:
            DeviceError: A name is unknown, or a parameter is not readable.
        """
        bitmap = self.readable if names is None else self.bitmap(names)
        unreadable = self.names(bitmap & ~self.readable)
        if unreadable:
            raise DeviceError(
                f"{self.name}.{unreadable[0]} is not readable",
                device=self.name,
                param=unreadable[0],
            )
        return bitmap

    def names(self, bitmap: int) -> list[str]:
        """Return the names of the parameters in a bitmap, in ascending order of ids."""
        return [param.name for param in self.params if bitmap >> param.id & 1]

    def pack(self, values: Mapping[str, Any]) -> tuple[int, bytes]:
        """Return the bitmap and the bytes of some values; that of an array is a sequence.

        Raises:
            DeviceError: A name is unknown.
            TypeError: A value has a wrong type or shape, or does not fit its type.
        """
        bitmap = self.bitmap(values)
        try:
            return bitmap, self.packing.pack(bitmap, values)
        except TypeError as error:
            raise TypeError(
                f"{dict(values)!r} does not fit the parameters of {self.name}: {error}"
            ) from None

    def unpack(self, bitmap: int, data: bytes) -> dict[str, Any]:
        """Return the values in a message by name; an array becomes a list.

        Raises:
            RemoteProtocolError: The bitmap has unknown parameters, or the length is wrong.
        """
        if bitmap >> len(self.params):
            raise RemoteProtocolError(
                f"{self.name} has only {len(self.params)} parameters", params=bitmap
            )
        try:
            return self.packing.unpack(bitmap, data)
        except ValueError as error:
            raise RemoteProtocolError(
                f"{self.name}: {error}", params=bitmap, length=len(data)
            ) from None


def unknown_parameter(peripheral: Peripheral, name: str) -> DeviceError:
    """Return the error for an unknown parameter, with a suggestion or the known names."""
    names = [param.name for param in peripheral.params]
    hint = nearest(name, names) or f"; it has {', '.join(names) or 'none'}"
    sentence = f"{peripheral.name} has no parameter {quote(name)}{hint}"
    return DeviceError(sentence, device=peripheral.name, param=clip(name))
