"""The codec for the packed values of parameters, as Smart Device messages and buffers contain them.

Source of the format: the Smart Device protocol. A bitmap selects parameters (bit i is id i). Their
values follow in ascending order of ids, little-endian and without padding.
"""

import ctypes
import functools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rt.catalog.parameter import Parameter


class Slice(NamedTuple):
    """A run of adjacent parameters: offsets in block and message, and length (bytes)."""

    block: int
    data: int
    length: int


class Packing:
    """The packed layout of the parameters of one peripheral.

    A block contains the values of all parameters, and a message those of a bitmap. The layout of
    each bitmap is computed once, because the same ones recur.

    Attributes:
        size: The size of a block (bytes).
    """

    def __init__(self, params: Sequence[Parameter]) -> None:
        self._params = params
        self._sizes = [param.size for param in params]
        self._offsets = [sum(self._sizes[:index]) for index in range(len(self._sizes))]
        self.size = sum(self._sizes)
        self.slices = functools.lru_cache(maxsize=256)(self._slices)
        self._layout = functools.lru_cache(maxsize=256)(self._make_layout)

    def pack(self, bitmap: int, values: Mapping[str, Any]) -> bytes:
        """Return the bytes of the values of a bitmap.

        Args:
            bitmap: The parameters.
            values: Their values by name, and possibly others; that of an array is a sequence or its
                bytes.

        Raises:
            KeyError: A value is missing.
            TypeError: A value has a wrong type or shape, or does not fit its type.
        """
        layout, names, arrays = self._layout(bitmap)
        items = [values[name] for name in names]
        try:
            for index, param in arrays:
                items[index] = _pack_array(param, items[index])
            return layout.pack(*items)
        except (struct.error, OverflowError) as error:
            raise TypeError(str(error)) from None

    def unpack(self, bitmap: int, data: bytes) -> dict[str, Any]:
        """Return the values of a bitmap by name; an array becomes a list.

        Raises:
            ValueError: ``data`` has not the length that `slices` returns.
        """
        layout, names, arrays = self._layout(bitmap)
        if len(data) != layout.size:
            raise ValueError(f"expected {layout.size} bytes of values, got {len(data)}")
        values = dict(zip(names, layout.unpack(data), strict=True))
        for index, param in arrays:
            values[names[index]] = unpack_value(param, values[names[index]])
        return values

    def split(self, bitmap: int, limit: int) -> list[int]:
        """Split a bitmap into parts whose values take at most ``limit`` bytes each."""
        parts: list[int] = []
        part = length = 0
        for index, size in enumerate(self._sizes):
            if not bitmap >> index & 1:
                continue
            if part and length + size > limit:
                parts.append(part)
                part = length = 0
            part |= 1 << index
            length += size
        return [*parts, part] if part else parts

    def _slices(self, bitmap: int) -> tuple[int, tuple[Slice, ...]]:
        """Return the length of the values of a bitmap, and their runs in a block."""
        runs: list[Slice] = []
        position = 0
        for index, (offset, size) in enumerate(zip(self._offsets, self._sizes, strict=True)):
            if not bitmap >> index & 1:
                continue
            if runs and runs[-1].block + runs[-1].length == offset:
                runs[-1] = runs[-1]._replace(length=runs[-1].length + size)
            else:
                runs.append(Slice(offset, position, size))
            position += size
        return position, tuple(runs)

    def _make_layout(
        self, bitmap: int
    ) -> tuple[struct.Struct, tuple[str, ...], tuple[tuple[int, Parameter], ...]]:
        """Return the format of a bitmap with arrays as bytes, its names, and its arrays."""
        params = [param for param in self._params if bitmap >> param.id & 1]
        formats = [param.format if param.is_simple else f"{param.size}s" for param in params]
        arrays = tuple((i, param) for i, param in enumerate(params) if not param.is_simple)
        return struct.Struct("<" + "".join(formats)), tuple(param.name for param in params), arrays


def pack_value(param: Parameter, value: Any) -> bytes:
    """Return the bytes of one value; that of an array is a sequence.

    Raises:
        TypeError: An array has a wrong shape.
        struct.error: A value has a wrong type, or does not fit its type.
        OverflowError: A number is too large for a float.
    """
    return struct.pack("<" + param.format, *_flatten(param.platform_type, value))


def unpack_value(param: Parameter, data: bytes) -> Any:
    """Return the value in the bytes of one parameter; an array becomes a list."""
    return _nest(param.platform_type, iter(struct.unpack("<" + param.format, data)))


def _pack_array(param: Parameter, value: Any) -> bytes:
    if not isinstance(value, bytes):
        return pack_value(param, value)
    if len(value) != param.size:
        raise TypeError(f"{param.name} has {len(value)} bytes, expected {param.size}")
    return value


def _flatten(ctype: Any, value: Any) -> Iterator[Any]:
    """Yield the elements of an array in the order of the wire format, or a single value."""
    if not issubclass(ctype, ctypes.Array):
        yield value
        return
    if len(value) != ctype._length_:
        raise TypeError(f"expected an array of {ctype._length_} elements, got {len(value)}")
    for item in value:
        yield from _flatten(ctype._type_, item)


def _nest(ctype: Any, items: Iterator[Any]) -> Any:
    if not issubclass(ctype, ctypes.Array):
        return next(items)
    return [_nest(ctype._type_, items) for _ in range(ctype._length_)]
