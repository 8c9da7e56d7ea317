"""Smart Device messages and noise as hypothesis strategies, and readers fed in different ways."""

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import TypeAlias, cast

from cobs import cobs
from hypothesis import strategies as st

from rt.errors import RemoteProtocolError
from rt.protocol import frames
from rt.protocol.message import (
    DevData,
    DevDisable,
    DevRead,
    DevWrite,
    Error,
    ErrorCode,
    HbReq,
    HbRes,
    Message,
    Ping,
    SubReq,
    SubRes,
)

Found: TypeAlias = Message | ErrorCode
"""What a reader found: a message, or the code of an error."""

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
values = st.one_of(
    st.binary(max_size=frames.MAX_PAYLOAD - 2),
    st.builds(
        operator.mul,
        st.sampled_from([b"\0", b"\1", b"\xff"]),
        st.integers(0, frames.MAX_PAYLOAD - 2),
    ),
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ping),
    st.builds(SubReq, u16, u16),
    st.builds(SubRes, u16, u16, st.integers(0, 2**88 - 1)),
    st.builds(DevRead, u16),
    st.builds(DevWrite, u16, values),
    st.builds(DevData, u16, values),
    st.builds(DevDisable),
    st.builds(HbReq, u8),
    st.builds(HbRes, u8),
    st.builds(Error, u8),
)


def frame_of(body: bytes, checksum: int | None = None) -> bytes:
    """Return the frame of a body without delimiter, with the correct checksum or another one."""
    total = functools.reduce(operator.xor, body, 0) if checksum is None else checksum
    return cast("bytes", cobs.encode(body + bytes([total])))


def body_of(message: Message) -> bytes:
    """Return the part of a message that its checksum covers."""
    return cast("bytes", cobs.decode(frames.encode(message)[:-1]))[:-1]


@st.composite
def truncated(draw: st.DrawFn) -> bytes:
    """A part of a frame, left by an interrupted write or a pulled plug."""
    wire = frames.encode(draw(messages))[:-1]
    start = draw(st.integers(0, len(wire)))
    return wire[start : draw(st.integers(start, len(wire)))]


@st.composite
def corrupted(draw: st.DrawFn) -> bytes:
    """A frame with one changed byte."""
    wire = bytearray(frames.encode(draw(messages))[:-1])
    wire[draw(st.integers(0, len(wire) - 1))] ^= draw(st.integers(1, 255))
    return bytes(wire)


noise = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=600),
    st.text("\0\1a", max_size=20).map(str.encode),
    truncated(),
    corrupted(),
    st.builds(lambda message, checksum: frame_of(body_of(message), checksum), messages, u8),
    st.builds(
        lambda kind, payload: frame_of(bytes([kind, len(payload)]) + payload),
        u8,
        st.binary(max_size=20),
    ),
    st.builds(operator.mul, st.sampled_from([b"\1", b"\x55", b"\xff"]), st.integers(250, 600)),
)
"""Bytes that are not a frame, or only look like one; they may contain delimiters."""


def feed(chunks: Iterable[bytes]) -> list[Found]:
    """Return what a reader finds in chunks, and check that it keeps at most one frame."""
    reader = frames.FrameReader()
    found: list[Found] = []
    for chunk in chunks:
        found += [
            ErrorCode(item.context["code"]) if isinstance(item, RemoteProtocolError) else item
            for item in reader.feed(chunk)
        ]
        assert len(reader._tail) <= frames.MAX_FRAME
    return found


def split(stream: bytes, positions: Sequence[int]) -> list[bytes]:
    """Split a stream into chunks at these positions; some of them may be empty."""
    ends = sorted(position % (len(stream) + 1) for position in positions)
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True)]


def read(stream: bytes, positions: Sequence[int] = ()) -> list[Found]:
    """Return what a reader finds in a stream.

    The result must be the same whole, byte by byte, in chunks of a frame's size, and split at these
    positions.
    """
    found = feed([stream])
    for chunks in (
        [stream[i : i + 1] for i in range(len(stream))],
        [stream[i : i + frames.MAX_FRAME] for i in range(0, len(stream), frames.MAX_FRAME)],
        split(stream, positions),
    ):
        assert feed(chunks) == found
    return found
