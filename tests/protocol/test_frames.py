"""Tests of frames: byte-compatible with firmware, and resistant to noise."""

import random
from typing import cast

import pytest
from cobs import cobs
from hypothesis import given
from support.messages import frame_of, messages, read

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


def error_of(frame: bytes) -> ErrorCode:
    with pytest.raises(RemoteProtocolError) as caught:
        frames.decode(frame)
    assert caught.value.context["reason"]
    return ErrorCode(caught.value.context["code"])


@pytest.mark.parametrize(("wire", "message"), GOLDEN.items())
def test_golden_frames_match_byte_by_byte(wire: str, message: Message) -> None:
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
def test_field_out_of_range_is_a_local_error(message: Message) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent"):
        frames.encode(message)


def test_each_malformation_has_its_error_code() -> None:
    assert error_of(b"\x05\x01") == ErrorCode.UNEXPECTED_DELIMITER
    assert error_of(cast("bytes", cobs.encode(b"\x10\x00"))) == ErrorCode.UNEXPECTED_DELIMITER
    assert error_of(frame_of(b"\x17\x02\x00")) == ErrorCode.UNEXPECTED_DELIMITER
    assert error_of(frame_of(b"\x10\x00", checksum=0x11)) == ErrorCode.BAD_CHECKSUM
    assert error_of(frame_of(b"\x42\x00")) == ErrorCode.INVALID_TYPE


@pytest.mark.parametrize(
    "body",
    [
        b"\x10\x01\x00",
        b"\x11\x02\x00\x00",
        b"\x13\x00",
        b"\x14\x01\x00",
        b"\x15\x01\x00",
        b"\x16\x01\x01",
        b"\x17\x00",
    ],
)
def test_payload_of_wrong_length_is_malformed(body: bytes) -> None:
    assert error_of(frame_of(body)) == ErrorCode.GENERIC_ERROR


def test_unknown_error_code_is_received() -> None:
    assert frames.decode(frames.encode(Error(0x42))[:-1]) == Error(0x42)


def test_empty_frames_are_ignored() -> None:
    assert read(b"\0\0\0" + frames.encode(Ping()) + b"\0\0") == [Ping()]


def test_too_long_frame_is_one_error() -> None:
    assert read(b"\x01" * 300 + b"\0" + frames.encode(Ping())) == [
        ErrorCode.BUFFER_OVERFLOW,
        Ping(),
    ]


def test_random_bytes_are_errors_and_reading_continues() -> None:
    rng = random.Random(2026)
    reader = frames.FrameReader()
    for _ in range(200):
        for item in reader.feed(rng.randbytes(1000)):
            assert isinstance(item, RemoteProtocolError)
    assert reader.feed(b"\0" + frames.encode(Ping()))[-1] == Ping()


def test_errors_keep_no_other_object_alive() -> None:
    (error,) = frames.FrameReader().feed(b"\x05\x01\0")
    assert isinstance(error, RemoteProtocolError)
    assert error.__traceback__ is None
    assert error.__cause__ is None
    assert error.__context__ is None
