"""The messages of the Smart Device protocol as values.

One frozen struct a message, with the fields that travel and nothing else. A bitmap stays the
integer that it is on the wire (bit i stands for parameter id i) and parameter values stay packed
bytes, because their layout is the catalog's business. `rt.protocol.frames` turns these to bytes and
back.
"""

import enum
from typing import Final, TypeAlias

import msgspec

PARAMS_MAX = 0xFFFF
"""All 16 bits of a parameter bitmap."""

INTERVAL_MAX = 0xFFFF
"""The longest subscription interval that fits its field, in milliseconds."""

VALUES_MAX = 253
"""The most bytes of values in one message: the longest payload less its bitmap."""


class MessageType(enum.IntEnum):
    """The first byte of a message."""

    PING = 0x10
    SUB_REQ = 0x11
    SUB_RES = 0x12
    DEV_READ = 0x13
    DEV_WRITE = 0x14
    DEV_DATA = 0x15
    DEV_DISABLE = 0x16
    HB_REQ = 0x17
    HB_RES = 0x18
    ERROR = 0xFF


class ErrorCode(enum.IntEnum):
    """What an `Error` message says. Firmware may send other codes; they are carried as plain integers."""

    OK = 0x00
    BACKOFF = 0xFA
    INVALID_TYPE = 0xFB
    BUFFER_OVERFLOW = 0xFC
    UNEXPECTED_DELIMITER = 0xFD
    BAD_CHECKSUM = 0xFE
    GENERIC_ERROR = 0xFF


class Ping(msgspec.Struct, frozen=True, gc=False):
    """Asks a device who it is; it answers `SubRes`."""


class SubReq(msgspec.Struct, frozen=True, gc=False):
    """Asks a device to send parameters on its own.

    Attributes:
        params: Bitmap of the wanted parameters, 16 bits.
        interval: Time between two `DevData`, in ms, 0 to 65535; 0 ends the subscription.
    """

    params: int
    interval: int


class SubRes(msgspec.Struct, frozen=True, gc=False):
    """Tells which subscription a device granted, and who it is.

    Attributes:
        params: Bitmap of the subscribed parameters; write-only ones were dropped.
        interval: Granted interval in ms, 40 to 250, or 0 for none.
        uid: 88 bits: device id (16) << 72 | year (8) << 64 | random (64).
    """

    params: int
    interval: int
    uid: int

    @property
    def device_id(self) -> int:
        """The kind of device: the top 16 bits of the UID, a key of the catalog."""
        return self.uid >> 72


class DevRead(msgspec.Struct, frozen=True, gc=False):
    """Asks a device for the parameters of a bitmap, once."""

    params: int


class DevWrite(msgspec.Struct, frozen=True, gc=False):
    """Sets parameters of a device.

    Attributes:
        params: Bitmap of the parameters that follow.
        data: Their values, packed without padding in ascending parameter id, at most `VALUES_MAX`
            bytes.
    """

    params: int
    data: bytes


class DevData(msgspec.Struct, frozen=True, gc=False):
    """Carries parameters of a device, in the same form as `DevWrite`."""

    params: int
    data: bytes


class DevDisable(msgspec.Struct, frozen=True, gc=False):
    """Makes a device stop acting. It keeps answering."""


class HbReq(msgspec.Struct, frozen=True, gc=False):
    """Asks the other side for a sign of life with the same id, 0 to 255."""

    id: int


class HbRes(msgspec.Struct, frozen=True, gc=False):
    """The sign of life that an `HbReq` asked for."""

    id: int


class Error(msgspec.Struct, frozen=True, gc=False):
    """Tells the other side what went wrong, most often an `ErrorCode`."""

    code: int


Message: TypeAlias = (
    Ping | SubReq | SubRes | DevRead | DevWrite | DevData | DevDisable | HbReq | HbRes | Error
)

MESSAGES: Final[dict[MessageType, type[Message]]] = {
    MessageType.PING: Ping,
    MessageType.SUB_REQ: SubReq,
    MessageType.SUB_RES: SubRes,
    MessageType.DEV_READ: DevRead,
    MessageType.DEV_WRITE: DevWrite,
    MessageType.DEV_DATA: DevData,
    MessageType.DEV_DISABLE: DevDisable,
    MessageType.HB_REQ: HbReq,
    MessageType.HB_RES: HbRes,
    MessageType.ERROR: Error,
}
"""Every message by its first byte."""
