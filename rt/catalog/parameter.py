"""One parameter of a peripheral: its name, type, wire format, and the range of its values."""

import ctypes
import math
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from rt.errors import DeviceBufferError
from rt.text import nearest

_SIMPLE: dict[str, Any] = {
    "bool": ctypes.c_bool,
    "int8": ctypes.c_int8,
    "uint8": ctypes.c_uint8,
    "int16": ctypes.c_int16,
    "uint16": ctypes.c_uint16,
    "int32": ctypes.c_int32,
    "uint32": ctypes.c_uint32,
    "int64": ctypes.c_int64,
    "uint64": ctypes.c_uint64,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}
TYPE_NAMES = tuple(_SIMPLE)
"""The names of the simple types in a catalog."""

MAX_BYTES = 1 << 16
"""The maximum bytes of one value, and of all values of a peripheral, to bound shared memory."""
MAX_DIMENSIONS = 8

_FORMATS: dict[Any, str] = {
    ctypes.c_bool: "?",
    ctypes.c_int8: "b",
    ctypes.c_uint8: "B",
    ctypes.c_int16: "h",
    ctypes.c_uint16: "H",
    ctypes.c_int32: "i",
    ctypes.c_uint32: "I",
    ctypes.c_int64: "q",
    ctypes.c_uint64: "Q",
    ctypes.c_float: "f",
}
_SPECIFIER = re.compile(r"(?P<base>\w+)(?P<sizes>(\[[0-9]+\])*)")
_REAL = (ctypes.c_float, ctypes.c_double)
_FLOAT_MAX = 3.4028234663852886e38
"""The largest 4-byte float."""


class OutOfRangeWarning(UserWarning):
    """A value was clamped to the limits of its parameter."""


class Parameter(NamedTuple):
    """The description of a parameter.

    Args:
        name: The parameter's name.
        ctype: The C type that the catalog names.
        id: The position of the parameter in bitmaps and messages, from 0.
        lower: The smallest valid value, for numeric parameters.
        upper: The largest valid value, for numeric parameters.
        readable: Whether the parameter can be read with ``Buffer.get``.
        writeable: Whether the parameter can be written with ``Buffer.write``.
        subscribed: Whether the parameter is subscribed to by default (Smart Devices).
    """

    name: str
    ctype: Any
    id: int
    lower: float = -math.inf
    upper: float = math.inf
    readable: bool = True
    writeable: bool = False
    subscribed: bool = True

    def clamp(self, value: float, /) -> float:
        """Return the nearest value within the limits, with a warning if it differs.

        The warning is an ``OutOfRangeWarning``.

        Raises:
            ValueError: The value is not a number (NaN).

        Example:
            >>> import warnings; warnings.simplefilter("ignore")
            >>> param = Parameter("param", ctypes.c_double, 0, lower=-1, upper=1)
            >>> param.clamp(-1.1)
            -1
            >>> param.clamp(1.1)
            1
            >>> param.clamp(0)
            0
        """
        if self.lower <= value <= self.upper:
            return value
        if value != value:  # noqa: PLR0124 - the test for NaN that needs no call
            raise ValueError(f"{self.name} must be a number, not NaN")
        bound = self.lower if value < self.lower else self.upper
        warnings.warn(
            f"{self.name} = {value} is out of range {self.lower} to {self.upper}; using {bound}",
            OutOfRangeWarning,
            stacklevel=2,
        )
        return bound

    @staticmethod
    def parse_ctype(type_specifier: str) -> Any:
        """Return the C type of a specifier.

        It is the name of a simple type, followed by ``[n]`` for each dimension of an array.

        Raises:
            ValueError: There is no such type.

        Example:
            >>> assert Parameter.parse_ctype("bool") is ctypes.c_bool
            >>> assert Parameter.parse_ctype("int32[64]") is ctypes.c_int32 * 64
            >>> assert Parameter.parse_ctype("uint64[8][8]") is ctypes.c_uint64 * 8 * 8
        """
        match = _SPECIFIER.fullmatch(type_specifier)
        if match is None or match["base"] not in _SIMPLE:
            base = type_specifier.partition("[")[0].strip()
            types = f"; use one of {', '.join(TYPE_NAMES)}, or uint8[64]"
            hint = nearest(base, TYPE_NAMES, cutoff=0.6) or types
            raise ValueError(f"unknown type {type_specifier[:60]!r}{hint}")
        ctype = _SIMPLE[match["base"]]
        sizes = re.findall(r"[0-9]+", match["sizes"])
        if len(sizes) > MAX_DIMENSIONS:
            raise ValueError(f"{type_specifier[:60]!r} has more than {MAX_DIMENSIONS} dimensions")
        for digits in sizes:
            size = int(digits) if len(digits) <= len(str(MAX_BYTES)) else MAX_BYTES + 1
            if size == 0:
                raise ValueError(f"{type_specifier[:60]!r} has no elements")
            if size * ctypes.sizeof(ctype) > MAX_BYTES:
                raise ValueError(f"{type_specifier[:60]!r} takes more than {MAX_BYTES} bytes")
            ctype = ctype * size
        return ctype

    @property
    def default(self) -> Any:
        """The initial value of a simple parameter.

        Raises:
            DeviceBufferError: The parameter is an array.

        Example:
            >>> Parameter("param", ctypes.c_double, 0).default
            0.0
            >>> Parameter("param", ctypes.c_bool, 0).default
            False
            >>> Parameter("param", ctypes.c_bool * 3, 0).default
            Traceback (most recent call last):
            ...
            rt.errors.DeviceBufferError: an array has no default
        """
        if not self.is_simple:
            raise DeviceBufferError("an array has no default", param=self.name)
        return self.platform_type().value

    @property
    def initial(self) -> Any:
        """The initial value: zero or False, or nested lists of it for an array.

        Example:
            >>> Parameter("param", ctypes.c_bool * 3, 0).initial
            [False, False, False]
        """
        return _zeros(self.platform_type)

    @property
    def platform_type(self) -> Any:
        """The C type of the wire format: the double of a board is a float, 4 bytes."""
        return _platform_type(self.ctype)

    @property
    def size(self) -> int:
        """The bytes of a value on the wire."""
        return ctypes.sizeof(self.platform_type)

    @property
    def is_simple(self) -> bool:
        """Whether the parameter is a single value, not an array."""
        return self.ctype in _FORMATS or self.ctype is ctypes.c_double

    @property
    def is_real(self) -> bool:
        """Whether the values are floating-point numbers."""
        return self.ctype in _REAL

    @property
    def format(self) -> str:
        """The format of a value for ``struct``, such as ``f``, or ``64B`` for an array."""
        ctype, count = _element(self.platform_type)
        letter = _FORMATS[ctype]
        return letter if self.is_simple else f"{count}{letter}"

    @property
    def type_bounds(self) -> tuple[float, float]:
        """The smallest and the largest finite value of the type of a single number."""
        if self.is_real:
            return -_FLOAT_MAX, _FLOAT_MAX
        bits = 8 * ctypes.sizeof(self.ctype)
        return (
            (-(1 << bits - 1), (1 << bits - 1) - 1)
            if self.format.islower()
            else (0, (1 << bits) - 1)
        )

    def checked(self, value: Any, /) -> Any:
        """Return the value, clamped to the limits and the type without a warning.

        Each element of an array is checked and clamped; the shape is not checked.

        Raises:
            TypeError: The value has a wrong type.
            ValueError: The value is not a number (NaN).
        """
        ctype = self.ctype
        if ctype in _REAL:
            if value.__class__ is not float:
                value = self._number(value)
            # Faster than min and max, which take longer than the rest of this method.
            if self.lower <= value <= self.upper and -_FLOAT_MAX <= value <= _FLOAT_MAX:
                return value
            if value != value:  # noqa: PLR0124 - the test for NaN that needs no call
                raise ValueError(f"{self.name} must be a number, not NaN")
            return min(max(value, self.lower, -_FLOAT_MAX), self.upper, _FLOAT_MAX)
        if ctype is ctypes.c_bool:
            if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
                return bool(value)
            raise TypeError(f"{self.name} must be True or False, not {value!r}")
        if not self.is_simple:
            element = self._replace(ctype=_element(ctype)[0])
            return _map(element.checked, ctype, value)
        if not isinstance(value, int):
            raise TypeError(f"{self.name} must be an integer, not {value!r}")
        least, most = self._bounds()
        return int(min(max(value, least), most))

    def _number(self, value: Any) -> float:
        if not isinstance(value, (int, float)):
            raise TypeError(f"{self.name} must be a number, not {value!r}")
        try:
            return float(value)
        except OverflowError:  # an integer larger than any float
            return math.inf if value > 0 else -math.inf

    def _bounds(self) -> tuple[float, float]:
        least, most = self.type_bounds
        return max(self.lower, least), min(self.upper, most)


def _platform_type(ctype: Any) -> Any:
    if ctype is ctypes.c_double:
        return ctypes.c_float
    if isinstance(ctype, type) and issubclass(ctype, ctypes.Array):
        return _platform_type(ctype._type_) * ctype._length_
    return ctype


def _element(ctype: Any) -> tuple[Any, int]:
    """Return the simple type of the elements of a type, and their number."""
    count = 1
    while issubclass(ctype, ctypes.Array):
        count *= ctype._length_
        ctype = ctype._type_
    return ctype, count


def _map(function: Callable[[Any], Any], ctype: Any, value: Any) -> Any:
    """Return nested lists with a function applied to each element; the shape is not checked."""
    if not issubclass(ctype, ctypes.Array):
        return function(value)
    return [_map(function, ctype._type_, item) for item in value]


def _zeros(ctype: Any) -> Any:
    if issubclass(ctype, ctypes.Array):
        return [_zeros(ctype._type_) for _ in range(ctype._length_)]
    return ctype().value
