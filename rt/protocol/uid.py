"""The unique identifier of a Smart Device: 88 bits, as a C structure and as an integer.

Source: the Smart Device protocol (device id u16 << 72 | year u8 << 64 | random u64).
"""

import ctypes
from typing import Final, Self

UID_END: Final = 1 << 88
"""The end of the range of UIDs."""
_YEAR = 64
_DEVICE = 72


class BaseStructure(ctypes.Structure):
    """A C structure whose `repr` shows its fields."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name, *_ in self._fields_)
        return f"{type(self).__name__}({fields})"


class DeviceUID(BaseStructure):
    """A unique device identifier.

    Attributes:
        device_id: The type of the device, as in the catalog.
        year: The season the device was made for; 0 is spring 2016.
        random: A random number.

    Examples:
        >>> uid = DeviceUID(0xffff, 0xee, 0xc0debeef_deadbeef)
        >>> assert int(uid) == 0xffff_ee_c0debeef_deadbeef
        >>> uid = DeviceUID.from_int(0xffff_ee_c0debeef_deadbeef)
        >>> hex(uid.device_id)
        '0xffff'
        >>> hex(uid.year)
        '0xee'
        >>> hex(uid.random)
        '0xc0debeefdeadbeef'
        >>> DeviceUID(12, 7, 1)
        DeviceUID(device_id=12, year=7, random=1)
    """

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (
        ("device_id", ctypes.c_uint16),
        ("year", ctypes.c_uint8),
        ("random", ctypes.c_uint64),
    )

    def __int__(self) -> int:
        return int(self.device_id << _DEVICE | self.year << _YEAR | self.random)

    @classmethod
    def from_int(cls, uid: int) -> Self:
        """Return the identifier for an integer.

        Raises:
            ValueError: The integer is negative or has more than 88 bits.

        Example:
            >>> DeviceUID.from_int(1 << 88)
            Traceback (most recent call last):
            ...
            ValueError: 309485009821345068724781056 is not a UID: it has 88 bits
        """
        if not 0 <= uid < UID_END:
            raise ValueError(f"{uid} is not a UID: it has 88 bits")
        return cls(uid >> _DEVICE, uid >> _YEAR & 0xFF, uid & (1 << _YEAR) - 1)
