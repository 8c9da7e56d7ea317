"""Encoding and decoding of Smart Device messages: COBS frames with a length and a checksum.

A message is type (1 byte), payload length (1 byte), payload, checksum (1 byte, the XOR of all bytes
before it), COBS-encoded and followed by one zero byte. Values are little-endian. The format is
byte-compatible with existing firmware.

Invariant: received bytes only ever yield messages and errors. `FrameReader` keeps at most one
    frame's worth of bytes and resynchronizes at the next delimiter.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec
from cobs import cobs

from rt.errors import LocalProtocolError, RemoteProtocolError
from rt.protocol.message import (
    MESSAGES,
    DevData,
    DevDisable,
    DevRead,
    DevWrite,
    Error,
    ErrorCode,
    HbReq,
    HbRes,
    Message,
    MessageType,
    Ping,
    SubReq,
    SubRes,
)

Codec: TypeAlias = tuple[Callable[[Any], bytes], Callable[[bytes], Message]]
"""Functions that encode and decode the payload of a message."""

DELIMITER: Final = b"\0"
MAX_PAYLOAD: Final = 255
MAX_FRAME: Final = MAX_PAYLOAD + 3 + 2
"""The longest frame (bytes) without delimiter: header, payload, checksum and COBS overhead."""

_EMPTY: Final = struct.Struct("<")
_U8: Final = struct.Struct("<B")
_U16: Final = struct.Struct("<H")
_SUB_REQ: Final = struct.Struct("<HH")
_SUB_RES: Final = struct.Struct("<HHHBQ")


def encode(message: Message) -> bytes:
    """Return the frame of a message, with its delimiter.

    Raises:
        LocalProtocolError: A field is out of range, or the payload is too long.
    """
    kind, writer = _WRITERS[type(message)]
    try:
        payload = writer(message)
    except struct.error as error:
        raise LocalProtocolError(
            f"{type(message).__name__} cannot be sent: a field is out of range ({error})",
            message=repr(message),
        ) from error
    if len(payload) > MAX_PAYLOAD:
        raise LocalProtocolError(
            f"{type(message).__name__} cannot be sent: its payload has {len(payload)} bytes, "
            f"at most {MAX_PAYLOAD} fit",
            message=repr(message),
        )
    body = bytes((kind, len(payload))) + payload
    encoded: bytes = cobs.encode(body + _U8.pack(_xor(body)))
    return encoded + DELIMITER


def decode(frame: bytes) -> Message:
    """Return the message of one frame without its delimiter.

    Raises:
        RemoteProtocolError: The frame is malformed. The context holds `reason` and `code`, the
            `ErrorCode` to send to the peer.
    """
    try:
        body = cobs.decode(frame)
    except cobs.DecodeError as error:
        raise _malformed("it is not COBS-encoded", ErrorCode.UNEXPECTED_DELIMITER) from error
    size = len(body)
    if size < 3 or body[1] != size - 3:
        raise _malformed("its length field is wrong", ErrorCode.UNEXPECTED_DELIMITER)
    if _xor(body):
        raise _malformed("its checksum is wrong", ErrorCode.BAD_CHECKSUM)
    if body[0] == 0x15 and size >= 5:
        # Nearly every received frame is DEV_DATA, so this case bypasses the table.
        return DevData(body[2] | body[3] << 8, body[4:-1])
    reader = _READERS.get(body[0])
    if reader is None:
        raise _malformed(f"unknown message type 0x{body[0]:02x}", ErrorCode.INVALID_TYPE)
    try:
        return reader(body[2:-1])
    except struct.error as error:
        name = MessageType(body[0]).name
        raise _malformed(
            f"{size - 3} bytes are not a payload of {name}", ErrorCode.GENERIC_ERROR
        ) from error


class FrameReader:
    """Splits a stream of bytes into messages, with bounded memory.

    The stream may be split anywhere between two calls. Empty frames are ignored. A frame that is
    too long yields one error immediately, and the bytes up to the next delimiter are skipped.
    """

    __slots__ = ("_skipping", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[Message | RemoteProtocolError]:
        """Process bytes, and return the completed messages and errors in order; never raises."""
        *frames, tail = (
            (self._tail + data).split(DELIMITER) if self._tail else data.split(DELIMITER)
        )
        found: list[Message | RemoteProtocolError] = []
        for frame in frames:
            if self._skipping:
                self._skipping = False
            elif frame:
                found.append(_decode_or_error(frame))
        if self._skipping:
            tail = b""
        elif len(tail) > MAX_FRAME:
            found.append(_decode_or_error(tail))
            self._skipping = True
            tail = b""
        self._tail = tail
        return found


def _decode_or_error(frame: bytes) -> Message | RemoteProtocolError:
    """Return the message of a frame, or its error without traceback (which keeps bytes alive)."""
    if len(frame) > MAX_FRAME:
        return _malformed(f"it is longer than {MAX_FRAME} bytes", ErrorCode.BUFFER_OVERFLOW)
    try:
        return decode(frame)
    except RemoteProtocolError as error:
        error.__cause__ = None
        error.__context__ = None
        return error.with_traceback(None)


def _malformed(reason: str, code: ErrorCode) -> RemoteProtocolError:
    return RemoteProtocolError(f"malformed frame from a device: {reason}", reason=reason, code=code)


def _write_sub_res(message: SubRes) -> bytes:
    uid = message.uid
    year, random = uid >> 64 & 0xFF, uid & 0xFFFF_FFFF_FFFF_FFFF
    return _SUB_RES.pack(message.params, message.interval, uid >> 72, year, random)


def _read_sub_res(payload: bytes) -> SubRes:
    params, interval, device_id, year, random = _SUB_RES.unpack(payload)
    return SubRes(params, interval, device_id << 72 | year << 64 | random)


def _write_values(message: DevWrite | DevData) -> bytes:
    return _U16.pack(message.params) + message.data


def _read_values(kind: type[DevWrite] | type[DevData], payload: bytes) -> DevWrite | DevData:
    (params,) = _U16.unpack(payload[:2])
    return kind(params, payload[2:])


def _codec(kind: type[Message], layout: struct.Struct) -> Codec:
    """Return the codec of a message whose payload is its fields."""
    return (
        lambda message: layout.pack(*msgspec.structs.astuple(message)),
        lambda payload: kind(*layout.unpack(payload)),
    )


_PAYLOADS: Final[dict[type[Message], Codec]] = {
    Ping: _codec(Ping, _EMPTY),
    SubReq: _codec(SubReq, _SUB_REQ),
    SubRes: (_write_sub_res, _read_sub_res),
    DevRead: _codec(DevRead, _U16),
    DevWrite: (_write_values, lambda payload: _read_values(DevWrite, payload)),
    DevData: (_write_values, lambda payload: _read_values(DevData, payload)),
    DevDisable: _codec(DevDisable, _EMPTY),
    HbReq: _codec(HbReq, _U8),
    HbRes: _codec(HbRes, _U8),
    Error: _codec(Error, _U8),
}

_WRITERS: Final = {kind: (number, _PAYLOADS[kind][0]) for number, kind in MESSAGES.items()}
_READERS: Final = {int(number): _PAYLOADS[kind][1] for number, kind in MESSAGES.items()}


_FOLDS: Final = tuple(tuple(8 << step for step in reversed(range(steps))) for steps in range(10))
"""The shifts (bits) that fold an integer to its lowest byte, by the number of steps."""


def _xor(data: bytes) -> int:
    """Return the XOR of all bytes, at most 512.

    Folding them as one integer is several times faster than a loop.
    """
    folded = int.from_bytes(data, "little")
    for width in _FOLDS[(len(data) - 1).bit_length()]:
        folded ^= folded >> width
    return folded & 0xFF
