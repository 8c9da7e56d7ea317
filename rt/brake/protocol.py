"""Messages between the device process and the brake, and the bytes that disable a device.

Each message is one datagram of a SOCK_SEQPACKET pair: a type (1 byte), the number of a line
(unsigned 32 bit, little endian) and a text (UTF-8). File descriptors travel with it (SCM_RIGHTS,
unix(7)), at most one a message.

- HELLO, from the device process: its own pidfd comes along; the number is its process id. LINE
follows for each open line, then ALL.
- LINE: the number and the name of an open line; a duplicate of its descriptor comes along.
- CLOSED: a line is about to be closed. Its device has taken DEV_DISABLE or is dead: gone, or its
line was full for 1 s.
- ALL: lines that were not told since the last HELLO are closed.
- ASK, from the brake: its own pidfd comes along; the device process answers with HELLO.
- BRAKED, from the brake: the devices were disabled because the device process was late.

Pure: bytes in, values out.
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

DELIMITER: Final = b"\0"
DISABLE: Final = b"\0\x02\x16\x02\x16\0"
"""A delimiter, which ends half a frame of a process that died while it wrote, and the frame of DEV_DISABLE (`rt.protocol.frames`)."""
NAME_MAX: Final = 200
"""The longest name of a line in bytes; the rest is left out."""
SIZE: Final = 5 + NAME_MAX
"""The longest message in bytes."""

_HEAD: Final = struct.Struct("<BI")


class Kind(IntEnum):
    """What a message says."""

    HELLO = 1
    LINE = 2
    CLOSED = 3
    ASK = 4
    BRAKED = 5
    ALL = 6


WITH_DESCRIPTOR: Final = frozenset({Kind.HELLO, Kind.LINE, Kind.ASK})
"""The messages with which a file descriptor comes."""


class Message(NamedTuple):
    """One message, without its file descriptor."""

    kind: Kind
    number: int = 0
    name: str = ""


def encode(message: Message) -> bytes:
    """The bytes of a message; a name that is too long is cut."""
    return (
        _HEAD.pack(message.kind, message.number) + message.name.encode(errors="replace")[:NAME_MAX]
    )


def decode(data: bytes) -> Message | None:
    """The message that bytes carry, or None if they are no message."""
    if not _HEAD.size <= len(data) <= SIZE:
        return None
    kind, number = _HEAD.unpack_from(data)
    try:
        return Message(Kind(kind), number, data[_HEAD.size :].decode(errors="replace"))
    except ValueError:
        return None
