"""Messages between the device process and the brake, and the bytes that disable a device.

Each message is one datagram of a SOCK_SEQPACKET pair: a type (1 byte), the number of a line
(unsigned 32 bit, little endian) and a text (UTF-8). A message carries at most one file descriptor
(SCM_RIGHTS, unix(7)).

- HELLO, from the device process: carries its pidfd; the number is its process id. It is followed by
  LINE for each open line, then ALL.
- LINE: the number and the name of an open line; carries a duplicate of its descriptor.
- CLOSED: a line is about to be closed. Its device has accepted DEV_DISABLE or is dead: gone, or its
  line was full for 1 s.
- ALL: lines that were not announced since the last HELLO are closed.
- ASK, from the brake: carries its pidfd; the device process replies with HELLO.
- BRAKED, from the brake: the devices were disabled because the device process was late.

Pure: bytes in, values out.
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

DELIMITER: Final = b"\0"
DISABLE: Final = b"\0\x02\x16\x02\x16\0"
"""DEV_DISABLE (`rt.protocol.frames`), after a delimiter that ends a partial frame."""
NAME_MAX: Final = 200
"""The longest name of a line in bytes; longer names are truncated."""
SIZE: Final = 5 + NAME_MAX
"""The longest message in bytes."""

_HEAD: Final = struct.Struct("<BI")


class Kind(IntEnum):
    """The type of a message."""

    HELLO = 1
    LINE = 2
    CLOSED = 3
    ASK = 4
    BRAKED = 5
    ALL = 6


WITH_DESCRIPTOR: Final = frozenset({Kind.HELLO, Kind.LINE, Kind.ASK})
"""The types of messages that carry a file descriptor."""


class Message(NamedTuple):
    """One message, without its file descriptor."""

    kind: Kind
    number: int = 0
    name: str = ""


def encode(message: Message) -> bytes:
    """Encode a message; a long name is truncated."""
    return (
        _HEAD.pack(message.kind, message.number) + message.name.encode(errors="replace")[:NAME_MAX]
    )


def decode(data: bytes) -> Message | None:
    """Decode a message; None if the bytes are not a message."""
    if not _HEAD.size <= len(data) <= SIZE:
        return None
    kind, number = _HEAD.unpack_from(data)
    try:
        return Message(Kind(kind), number, data[_HEAD.size :].decode(errors="replace"))
    except ValueError:
        return None
