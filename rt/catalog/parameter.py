"""One parameter of a peripheral: its name, type, place on the wire, and the range of its values."""

import ctypes
import math
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from rt.errors import DeviceBufferError
from rt.text import closest

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
"""The names of the simple types that a catalog may use."""

MAX_BYTES = 1 << 16
"""The most bytes of one value, and of all values of a peripheral: what shared memory is spent on."""
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
"""The greatest value of a 4-byte float."""


class OutOfRangeWarning(UserWarning):
    """A value was clamped to the limits of its parameter."""


class Parameter(NamedTuple):
    """A parameter descriptor.

    Args:
        name: The parameter's name.
        ctype: The C type that the catalog names.
        id: The parameter's place on the wire, a nonnegative integer.
        lower: The least valid value, for numeric parameters.
        upper: The greatest valid value, for numeric parameters.
        readable: Whether the parameter can be read with ``Buffer.get``.
        writeable: Whether the parameter can be written with ``Buffer.write``.
        subscribed: Whether it is subscribed to by default (Smart Devices).
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
        """The nearest value within the parameter's limits; one beyond them is warned of (``OutOfRangeWarning``).

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
            raise ValueError(f"{self.name} takes a number, and NaN is none")
        bound = self.lower if value < self.lower else self.upper
        warnings.warn(
            f"{self.name} = {value} is out of its range {self.lower} to {self.upper}: {bound} is used",
            OutOfRangeWarning,
            stacklevel=2,
        )
        return bound

    @staticmethod
    def parse_ctype(type_specifier: str) -> Any:
        """The C type of a specifier: a simple type's name, and a ``[n]`` for each dimension of an array.

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
            near = closest(base, TYPE_NAMES, cutoff=0.6)
            known = f"use one of {', '.join(TYPE_NAMES)}, or uint8[64]"
            hint = known if near is None else f"did you mean {near!r}?"
            raise ValueError(f"{type_specifier[:60]!r} is not a type: {hint}")
        ctype = _SIMPLE[match["base"]]
        sizes = re.findall(r"[0-9]+", match["sizes"])
        if len(sizes) > MAX_DIMENSIONS:
            raise ValueError(f"{type_specifier[:60]!r} has more than {MAX_DIMENSIONS} dimensions")
        for digits in sizes:
            size = int(digits) if len(digits) <= len(str(MAX_BYTES)) else MAX_BYTES + 1
            if size == 0:
                raise ValueError(f"{type_specifier[:60]!r} is an array without elements")
            if size * ctypes.sizeof(ctype) > MAX_BYTES:
                raise ValueError(f"{type_specifier[:60]!r} takes more than {MAX_BYTES} bytes")
            ctype = ctype * size
        return ctype

    @property
    def default(self) -> Any:
        """The value before anything is known.

        Raises:
            DeviceBufferError: The parameter is an array.

        Example:
            >>> Parameter("param", ctypes.c_double, 0).default
            0.0
            >>> Parameter("param", ctypes.c_int8, 0).default
            0
            >>> Parameter("param", ctypes.c_bool, 0).default
            False
            >>> Parameter("param", ctypes.c_bool * 3, 0).default
            Traceback (most recent call last):
            ...
            rt.errors.DeviceBufferError: vector parameters have no default
        """
        if not self.is_simple:
            raise DeviceBufferError("vector parameters have no default", param=self.name)
        return self.platform_type().value

    @property
    def initial(self) -> Any:
        """What is there before anything is known, of arrays too: the default, or lists of it.

        Example:
            >>> Parameter("param", ctypes.c_bool * 3, 0).initial
            [False, False, False]
        """
        return _zeros(self.platform_type)

    @property
    def platform_type(self) -> Any:
        """The C type as wide as the value is on the wire: a board's double is a float, 4 bytes."""
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
        """Whether the values are floating point numbers."""
        return self.ctype in _REAL

    @property
    def format(self) -> str:
        """The value's form on the wire for the ``struct`` module: a letter, or ``64B`` for an array of 64."""
        ctype, count = _element(self.platform_type)
        letter = _FORMATS[ctype]
        return letter if self.is_simple else f"{count}{letter}"

    @property
    def type_bounds(self) -> tuple[float, float]:
        """The least and the greatest finite value that the type of a single number holds."""
        if self.is_real:
            return -_FLOAT_MAX, _FLOAT_MAX
        bits = 8 * ctypes.sizeof(self.ctype)
        return (
            (-(1 << bits - 1), (1 << bits - 1) - 1)
            if self.format.islower()
            else (0, (1 << bits) - 1)
        )

    def checked(self, value: Any, /) -> Any:
        """A value that may be stored: of the right kind, a number that is one, clamped to the limits and to the type without a word.

        Of an array every element is; how many there are is looked at where it is stored.

        Raises:
            TypeError: The value is of another kind.
            ValueError: The value is not a number (NaN).
        """
        ctype = self.ctype
        if ctype in _REAL:
            if value.__class__ is not float:
                value = self._number(value)
            # Written out, since min and max take longer than everything else here.
            if self.lower <= value <= self.upper and -_FLOAT_MAX <= value <= _FLOAT_MAX:
                return value
            if value != value:  # noqa: PLR0124 - the test for NaN that needs no call
                raise ValueError(f"{self.name} takes a number, and NaN is none")
            return min(max(value, self.lower, -_FLOAT_MAX), self.upper, _FLOAT_MAX)
        if ctype is ctypes.c_bool:
            if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
                return bool(value)
            raise TypeError(f"{self.name} takes True or False, not {value!r}")
        if not self.is_simple:
            element = self._replace(ctype=_element(ctype)[0])
            return _each(element.checked, ctype, value)
        if not isinstance(value, int):
            raise TypeError(f"{self.name} takes an integer, not {value!r}")
        least, most = self._bounds()
        return int(min(max(value, least), most))

    def _number(self, value: Any) -> float:
        if not isinstance(value, (int, float)):
            raise TypeError(f"{self.name} takes a number, not {value!r}")
        try:
            return float(value)
        except OverflowError:  # an integer beyond every float
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
    """The simple type that a type consists of, and how many of it."""
    count = 1
    while issubclass(ctype, ctypes.Array):
        count *= ctype._length_
        ctype = ctype._type_
    return ctype, count


def _each(do: Callable[[Any], Any], ctype: Any, value: Any) -> Any:
    """What is done to each element of an array, in nested lists; how many there are is not looked at."""
    if not issubclass(ctype, ctypes.Array):
        return do(value)
    return [_each(do, ctype._type_, item) for item in value]


def _zeros(ctype: Any) -> Any:
    if issubclass(ctype, ctypes.Array):
        return [_zeros(ctype._type_) for _ in range(ctype._length_)]
    return ctype().value
