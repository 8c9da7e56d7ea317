"""Tests of what noise on a line costs.

A frame is the bytes between two delimiters, or between the start of the stream and the first
delimiter. Each frame is a message or one error and does not affect other frames. So a frame is lost
only if noise is attached to it without a delimiter between them. Therefore a sender sends a
delimiter first after an interrupted write.
"""

import functools
import operator
import tracemalloc
from collections.abc import Callable

import pytest
from cobs import cobs
from hypothesis import given
from hypothesis import strategies as st
from support.messages import Found, feed, frame_of, messages, noise, read, split, u8

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

cuts = st.lists(st.integers(0, 10_000), max_size=6)
SIZES = {0x10: 0, 0x11: 4, 0x12: 15, 0x13: 2, 0x16: 0, 0x17: 1, 0x18: 1, 0xFF: 1}
"""The length of a payload by type; those of 0x14 and 0x15 have at least 2 bytes."""


def reference_decode(frame: bytes) -> Found:
    """Decode a frame with an independent implementation of the protocol."""
    if len(frame) > 260:
        return ErrorCode.BUFFER_OVERFLOW
    body = _unstuffed(frame)
    if len(body) < 3 or body[1] != len(body) - 3:
        return ErrorCode.UNEXPECTED_DELIMITER
    if functools.reduce(operator.xor, body):
        return ErrorCode.BAD_CHECKSUM
    kind, payload = body[0], body[2:-1]
    if kind not in SIZES and kind not in {0x14, 0x15}:
        return ErrorCode.INVALID_TYPE
    if len(payload) < 2 if kind in {0x14, 0x15} else len(payload) != SIZES[kind]:
        return ErrorCode.GENERIC_ERROR
    return _message(kind, payload)


def _unstuffed(frame: bytes) -> bytes:
    try:
        return bytes(cobs.decode(frame))
    except cobs.DecodeError:
        return b""


def _message(kind: int, payload: bytes) -> Message:
    def number(start: int, size: int) -> int:
        return int.from_bytes(payload[start : start + size], "little")

    readers: dict[int, Callable[[], Message]] = {
        0x10: Ping,
        0x11: lambda: SubReq(number(0, 2), number(2, 2)),
        0x12: lambda: SubRes(
            number(0, 2), number(2, 2), number(4, 2) << 72 | number(6, 1) << 64 | number(7, 8)
        ),
        0x13: lambda: DevRead(number(0, 2)),
        0x14: lambda: DevWrite(number(0, 2), payload[2:]),
        0x15: lambda: DevData(number(0, 2), payload[2:]),
        0x16: DevDisable,
        0x17: lambda: HbReq(number(0, 1)),
        0x18: lambda: HbRes(number(0, 1)),
        0xFF: lambda: Error(number(0, 1)),
    }
    return readers[kind]()


def reference_read(stream: bytes) -> list[Found]:
    *whole, rest = stream.split(b"\0")
    unfinished = [ErrorCode.BUFFER_OVERFLOW] if len(rest) > 260 else []
    return [reference_decode(frame) for frame in whole if frame] + unfinished


def is_subsequence(wanted: list[Message], found: list[Found]) -> bool:
    rest = iter(found)
    return all(any(item == each for item in rest) for each in wanted)


@given(messages)
def test_message_round_trips_and_matches_the_reference(message: Message) -> None:
    wire = frames.encode(message)
    assert wire.find(b"\0") == len(wire) - 1
    assert len(wire) <= frames.MAX_FRAME + 1
    assert frames.decode(wire[:-1]) == message == reference_decode(wire[:-1])
    assert read(wire) == [message]


@pytest.mark.parametrize("kind", [DevWrite, DevData])
@pytest.mark.parametrize("byte", [0x00, 0x01, 0xFF])
def test_values_of_every_length_round_trip(kind: type[DevWrite] | type[DevData], byte: int) -> None:
    sent = [kind(0xFFFF, bytes([byte]) * size) for size in range(254)]
    assert [frames.decode(frames.encode(message)[:-1]) for message in sent] == sent
    assert feed([b"".join(map(frames.encode, sent))]) == sent
    assert max(len(frames.encode(message)) for message in sent) == frames.MAX_FRAME + (
        0 if byte == 0 else 1
    )


def test_every_heartbeat_and_error_round_trips() -> None:
    sent = [kind(number) for kind in (HbReq, HbRes, Error) for number in range(256)]
    assert feed([b"".join(map(frames.encode, sent))]) == sent


@given(st.lists(messages, max_size=8), cuts)
def test_clean_stream_is_independent_of_chunks(sent: list[Message], places: list[int]) -> None:
    assert read(b"".join(map(frames.encode, sent)), places) == sent


@given(st.lists(st.one_of(messages.map(frames.encode), noise, st.just(b"\0")), max_size=10), cuts)
def test_noisy_stream_is_independent_of_chunks(pieces: list[bytes], places: list[int]) -> None:
    stream = b"".join(pieces)
    assert read(stream, places) == reference_read(stream)


@given(st.lists(st.one_of(messages, noise), max_size=10), cuts)
def test_frame_is_lost_only_with_attached_noise(
    pieces: list[Message | bytes], places: list[int]
) -> None:
    stream, intact = b"", []
    for piece in pieces:
        if isinstance(piece, bytes):
            stream += piece
        else:
            if not stream or stream.endswith(b"\0"):
                intact.append(piece)
            stream += frames.encode(piece)
    assert is_subsequence(intact, read(stream, places))


@given(st.lists(messages), noise, st.booleans(), st.lists(messages, min_size=1), cuts)
def test_noise_costs_at_most_the_attached_frame(
    before: list[Message], dirt: bytes, delimiter: bool, after: list[Message], places: list[int]
) -> None:
    attached = dirt and not dirt.endswith(b"\0") and not delimiter
    stream = (
        b"".join(map(frames.encode, before))
        + dirt
        + b"\0" * delimiter
        + b"".join(map(frames.encode, after))
    )
    found = read(stream, places)
    assert found[: len(before)] == before
    intact = after[1:] if attached else after
    assert found[len(found) - len(intact) :] == intact
    broken = [part for part in dirt.split(b"\0") if part]
    assert len(found) - len(before) - len(intact) <= max(len(broken), 1 if attached else 0)


@given(noise.filter(lambda dirt: b"\0" not in dirt), noise.filter(lambda dirt: b"\0" not in dirt))
def test_invalid_frame_is_one_error(one: bytes, two: bytes) -> None:
    stream = one + b"\0\0" + two + b"\0"
    assert read(stream) == [reference_decode(part) for part in (one, two) if part]


BAD = {
    "not COBS": (b"\x05\x01", ErrorCode.UNEXPECTED_DELIMITER),
    "shorter than any message": (frame_of(b"\x10"), ErrorCode.UNEXPECTED_DELIMITER),
    "cut off": (frames.encode(DevRead(0xFFFF))[:-2], ErrorCode.UNEXPECTED_DELIMITER),
    "longer than its length field": (frame_of(b"\x10\x00\x00"), ErrorCode.UNEXPECTED_DELIMITER),
    "shorter than its length field": (frame_of(b"\x17\x02\x00"), ErrorCode.UNEXPECTED_DELIMITER),
    "a wrong checksum": (frame_of(b"\x10\x00", checksum=0x11), ErrorCode.BAD_CHECKSUM),
    "values and a wrong checksum": (
        frame_of(b"\x15\x03\x01\x00\x01", checksum=0),
        ErrorCode.BAD_CHECKSUM,
    ),
    "values without a bitmap": (frame_of(b"\x15\x00"), ErrorCode.GENERIC_ERROR),
    "values with half a bitmap": (frame_of(b"\x15\x01\x01"), ErrorCode.GENERIC_ERROR),
    "an unknown type": (frame_of(b"\x42\x00"), ErrorCode.INVALID_TYPE),
    "an unknown type and a wrong checksum": (
        frame_of(b"\x42\x00", checksum=0),
        ErrorCode.BAD_CHECKSUM,
    ),
    "a payload of another type": (frame_of(b"\x16\x01\x01"), ErrorCode.GENERIC_ERROR),
    "the longest payload, of the wrong type": (
        frame_of(b"\x10\xff" + b"\1" * 255),
        ErrorCode.GENERIC_ERROR,
    ),
    "one byte too long": (b"\1" * 261, ErrorCode.BUFFER_OVERFLOW),
}


@pytest.mark.parametrize(("frame", "code"), BAD.values(), ids=BAD)
def test_invalid_frame_between_valid_ones_has_its_code(frame: bytes, code: ErrorCode) -> None:
    good = frames.encode(Ping())
    assert read(good + frame + b"\0" + good) == [Ping(), code, Ping()]


@given(noise, st.integers(1, 40), u8)
def test_frame_is_found_after_repeated_noise(dirt: bytes, times: int, number: int) -> None:
    stream = dirt * times + b"\0" + frames.encode(HbReq(number))
    assert feed(split(stream, range(0, len(stream), 97)))[-1] == HbReq(number)


@pytest.mark.parametrize("chunk", [1, 61, 259, 260, 261, 4096, 65536])
def test_endless_garbage_is_one_error_in_bounded_memory(chunk: int) -> None:
    reader = frames.FrameReader()
    garbage = b"\x55" * chunk
    tracemalloc.start()
    try:
        for _ in range(3):
            errors = [item for _ in range(100_000 // chunk + 1) for item in reader.feed(garbage)]
            assert [item.context["code"] for item in errors if not isinstance(item, Message)] == [
                ErrorCode.BUFFER_OVERFLOW
            ]
            errors.clear()
            assert tracemalloc.get_traced_memory()[0] < 20_000
            assert reader.feed(b"\0" + frames.encode(Ping())) == [Ping()]
    finally:
        tracemalloc.stop()
