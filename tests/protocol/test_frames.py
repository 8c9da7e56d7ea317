"""Frames match the firmware to the byte, and noise costs no more than itself."""

import functools
import operator
import random
import tracemalloc
from typing import cast

import pytest
from cobs import cobs
from hypothesis import given
from hypothesis import strategies as st

from rt.errors import LocalProtocolError, RemoteProtocolError
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

GOLDEN: dict[str, Message] = {
    "02100210": Ping(),
    "0411040502280238": SubReq(0b101, 40),
    "04120f050228020c0b07efcdab89674523013b": SubRes(0b101, 40, 0x000C_07_0123456789ABCDEF),
    "061302ffff11": DevRead(0xFFFF),
    "0414060101010103bfac": DevWrite(1, bytes.fromhex("000000bf")),
    "0415040502010215": DevData(0b101, b"\1\0"),
    "0415070307efbeadde0132": DevData(0b11, bytes.fromhex("efbeadde01")),
    "02160216": DevDisable(),
    "0317010216": HbReq(0),
    "051801ffe6": HbRes(255),
    "04ff01fe01": Error(ErrorCode.BAD_CHECKSUM),
}

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
values = st.binary(max_size=frames.MAX_PAYLOAD - 2)
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
    total = functools.reduce(operator.xor, body, 0) if checksum is None else checksum
    return cast("bytes", cobs.encode(body + bytes([total])))


def reason_of(frame: bytes) -> ErrorCode:
    with pytest.raises(RemoteProtocolError) as caught:
        frames.decode(frame)
    assert caught.value.context["reason"]
    return ErrorCode(caught.value.context["code"])


@pytest.mark.parametrize(("wire", "message"), GOLDEN.items())
def test_golden_frames_are_matched_to_the_byte(wire: str, message: Message) -> None:
    frame = bytes.fromhex(wire)
    assert frames.encode(message) == frame + frames.DELIMITER
    assert frames.decode(frame) == message


@given(messages)
def test_decode_is_the_inverse_of_encode(message: Message) -> None:
    wire = frames.encode(message)
    assert wire.count(frames.DELIMITER) == 1
    assert len(wire) <= frames.MAX_FRAME + 1
    assert frames.decode(wire[:-1]) == message


@pytest.mark.parametrize(
    "message",
    [
        DevRead(0x1_0000),
        DevRead(-1),
        SubReq(0, 0x1_0000),
        SubRes(0, 0, 2**88),
        SubRes(0, 0, -1),
        HbReq(256),
        Error(-1),
        DevWrite(0, bytes(254)),
    ],
)
def test_a_field_that_does_not_fit_is_our_own_error(message: Message) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent"):
        frames.encode(message)


def test_each_malformation_has_its_error_code() -> None:
    assert reason_of(b"\x05\x01") == ErrorCode.UNEXPECTED_DELIMITER
    assert reason_of(cast("bytes", cobs.encode(b"\x10\x00"))) == ErrorCode.UNEXPECTED_DELIMITER
    assert reason_of(frame_of(b"\x17\x02\x00")) == ErrorCode.UNEXPECTED_DELIMITER
    assert reason_of(frame_of(b"\x10\x00", checksum=0x11)) == ErrorCode.BAD_CHECKSUM
    assert reason_of(frame_of(b"\x42\x00")) == ErrorCode.INVALID_TYPE


@pytest.mark.parametrize(
    "body",
    [b"\x10\x01\x00", b"\x11\x02\x00\x00", b"\x13\x00", b"\x14\x01\x00", b"\x15\x01\x00", b"\x16\x01\x01", b"\x17\x00"],
)
def test_a_payload_of_the_wrong_length_is_malformed(body: bytes) -> None:
    assert reason_of(frame_of(body)) == ErrorCode.GENERIC_ERROR


def test_an_unknown_error_code_still_arrives() -> None:
    assert frames.decode(frames.encode(Error(0x42))[:-1]) == Error(0x42)


@given(st.lists(messages), st.randoms(use_true_random=False))
def test_a_stream_may_be_cut_anywhere(sent: list[Message], dice: random.Random) -> None:
    stream = b"".join(map(frames.encode, sent))
    cuts = sorted(dice.randrange(len(stream) + 1) for _ in range(5))
    reader = frames.FrameReader()
    found = [item for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) for item in reader.feed(stream[a:b])]
    assert found == sent


@given(st.lists(messages, min_size=1), st.integers(0), st.binary(max_size=600), st.lists(messages), st.booleans())
def test_every_intact_frame_after_noise_is_found(
    before: list[Message], cut: int, noise: bytes, after: list[Message], byte_by_byte: bool
) -> None:
    stream = b"".join(map(frames.encode, before))
    stream = stream[: cut % (len(stream) + 1)] + noise + frames.DELIMITER + b"".join(map(frames.encode, after))
    reader = frames.FrameReader()
    chunks = [stream[i : i + 1] for i in range(len(stream))] if byte_by_byte else [stream]
    found = [item for chunk in chunks for item in reader.feed(chunk)]
    assert found[len(found) - len(after) :] == after


def test_empty_frames_are_nothing() -> None:
    assert frames.FrameReader().feed(b"\0\0\0" + frames.encode(Ping()) + b"\0\0") == [Ping()]


def test_a_frame_of_300_bytes_is_one_error() -> None:
    found = frames.FrameReader().feed(b"\x01" * 300 + b"\0" + frames.encode(Ping()))
    assert isinstance(found[0], RemoteProtocolError)
    assert found[0].context["code"] == ErrorCode.BUFFER_OVERFLOW
    assert found[1:] == [Ping()]


@pytest.mark.parametrize("chunk", [1, 64, 4096, 2**20])
def test_a_mebibyte_without_delimiter_is_one_error_in_bounded_memory(chunk: int) -> None:
    reader = frames.FrameReader()
    piece = b"\x55" * chunk
    found: list[object] = []
    tracemalloc.start()
    for _ in range(2**20 // chunk):
        found += reader.feed(piece)
    assert tracemalloc.get_traced_memory()[0] < 20_000
    tracemalloc.stop()
    assert len(found) == 1
    assert reader.feed(b"\0" + frames.encode(HbReq(7))) == [HbReq(7)]


def test_random_bytes_end_nothing_and_are_errors() -> None:
    dice = random.Random(2026)
    reader = frames.FrameReader()
    for _ in range(200):
        for item in reader.feed(dice.randbytes(1000)):
            assert isinstance(item, RemoteProtocolError)
    assert reader.feed(b"\0" + frames.encode(Ping()))[-1] == Ping()


def test_errors_in_a_stream_hold_on_to_nothing() -> None:
    (error,) = frames.FrameReader().feed(b"\x05\x01\0")
    assert isinstance(error, RemoteProtocolError)
    assert error.__traceback__ is None
    assert error.__cause__ is None
    assert error.__context__ is None
