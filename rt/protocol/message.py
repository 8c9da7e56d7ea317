"""The messages of the Smart Device protocol, one frozen struct each.

A bitmap remains the integer of the wire format (bit i stands for parameter id i), and parameter
values remain packed bytes, because their layout depends on the catalog. `rt.protocol.frames`
encodes and decodes messages.
"""

import enum
from typing import Final, TypeAlias

import msgspec

PARAMS_MAX = 0xFFFF
"""All 16 bits of a parameter bitmap."""

INTERVAL_MAX = 0xFFFF
"""The longest subscription interval (ms)."""

VALUES_MAX = 253
"""The maximum bytes of values in one message: the longest payload without its bitmap."""


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
    """The code of an `Error` message. Other codes from firmware stay plain integers."""

    OK = 0x00
    BACKOFF = 0xFA
    INVALID_TYPE = 0xFB
    BUFFER_OVERFLOW = 0xFC
    UNEXPECTED_DELIMITER = 0xFD
    BAD_CHECKSUM = 0xFE
    GENERIC_ERROR = 0xFF


class Ping(msgspec.Struct, frozen=True, gc=False):
    """A request for the identity of a device, which answers with `SubRes`."""


class SubReq(msgspec.Struct, frozen=True, gc=False):
    """A subscription request: the device sends parameters at an interval.

    Attributes:
        params: Bitmap of the requested parameters, 16 bits.
        interval: Time between two `DevData`, in ms, 0 to 65535; 0 ends the subscription.
    """

    params: int
    interval: int


class SubRes(msgspec.Struct, frozen=True, gc=False):
    """The granted subscription and the identity of a device.

    Attributes:
        params: Bitmap of the subscribed parameters, without write-only ones.
        interval: Granted interval in ms, 40 to 250, or 0 for none.
        uid: 88 bits: device id (16) << 72 | year (8) << 64 | random (64).
    """

    params: int
    interval: int
    uid: int

    @property
    def device_id(self) -> int:
        """The type of the device: the top 16 bits of the UID, as in the catalog."""
        return self.uid >> 72


class DevRead(msgspec.Struct, frozen=True, gc=False):
    """A request for the current values of parameters."""

    params: int


class DevWrite(msgspec.Struct, frozen=True, gc=False):
    """New values for parameters of a device.

    Attributes:
        params: Bitmap of the parameters that follow.
        data: Their values, packed without padding in ascending order of parameter ids, at most
            `VALUES_MAX` bytes.
    """

    params: int
    data: bytes


class DevData(msgspec.Struct, frozen=True, gc=False):
    """Values of parameters of a device, in the format of `DevWrite`."""

    params: int
    data: bytes


class DevDisable(msgspec.Struct, frozen=True, gc=False):
    """A command that stops all actuators of a device. The device continues to answer."""


class HbReq(msgspec.Struct, frozen=True, gc=False):
    """A heartbeat request; the peer answers with the same id, 0 to 255."""

    id: int


class HbRes(msgspec.Struct, frozen=True, gc=False):
    """The answer to `HbReq`."""

    id: int


class Error(msgspec.Struct, frozen=True, gc=False):
    """An error report to the peer; the code is usually an `ErrorCode`."""

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
"""The messages by their first byte."""
