"""Tests of the text format: JSON and hexadecimal are inverse, and errors have a position."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt import catalog
from rt.catalog import Peripheral
from rt.errors import DeviceError, RemoteProtocolError
from rt.protocol import frames
from rt.protocol.message import (
    DevData,
    DevDisable,
    DevRead,
    DevWrite,
    Error,
    HbReq,
    HbRes,
    Message,
    Ping,
    SubReq,
    SubRes,
)
from rt.textformat.message import FIELDS, TYPES, find_device, format_message, parse_message
from rt.textformat.text import format_text, parse_text
from rt.textformat.value import TextFormatError, short_float

CATALOG = catalog.load()
DEVICES = [peripheral for peripheral in CATALOG.values() if peripheral.device_id is not None]
ODD = catalog.parse(
    """
[odd-one]
device_id = 99
params = [
    { name = "grid", type = "int16[2][3]", writeable = true },
    { name = "far", type = "double", upper = 0.1, writeable = true },
    { name = "small", type = "int8", lower = -3, upper = 5, writeable = true },
    { name = "flags", type = "bool[4]", writeable = true },
]
"""
)
GOLDEN: dict[str, dict[str, Any]] = {
    "02100210": {"type": "PING"},
    "0411040502280238": {
        "type": "SUB_REQ",
        "device": "limit-switch",
        "params": ["switch0", "switch2"],
        "interval": 40,
    },
    "04120f050228020c0b07efcdab89674523013b": {
        "type": "SUB_RES",
        "device": "polar-bear",
        "params": ["duty_cycle", "pid_pos_kp"],
        "interval": 40,
        "uid": str(0x000C_07_0123456789ABCDEF),
    },
    "061302ffff11": {"type": "DEV_READ", "params": list(range(16))},
    "0414060101010103bfac": {
        "type": "DEV_WRITE",
        "device": "polar-bear",
        "params": {"duty_cycle": -0.5},
    },
    "0415040502010215": {
        "type": "DEV_DATA",
        "device": "limit-switch",
        "params": {"switch0": True, "switch2": False},
    },
    "0415070307efbeadde0132": {
        "type": "DEV_DATA",
        "device": "rfid",
        "params": {"id": 0xDEADBEEF, "tag_detect": 1},
    },
    "02160216": {"type": "DEV_DISABLE"},
    "0317010216": {"type": "HB_REQ", "id": 0},
    "051801ffe6": {"type": "HB_RES", "id": 255},
    "04ff01fe01": {"type": "ERROR", "code": "BAD_CHECKSUM"},
}
u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
uids = st.one_of(
    st.integers(0, 2**88 - 1),
    st.builds(
        lambda device, rest: device.device_id << 72 | rest,
        st.sampled_from(DEVICES),
        st.integers(0, 2**72 - 1),
    ),
)


def bitmaps(device: Peripheral) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << len(device.params)) - 1)


def carried(device: Peripheral, kind: type[Message]) -> st.SearchStrategy[Message]:
    """Return messages of a device with any bytes as values, also invalid ones."""

    def fill(bitmap: int) -> st.SearchStrategy[Message]:
        size = sum(
            struct.calcsize("<" + param.format) for param in device.params if bitmap >> param.id & 1
        )
        return st.builds(kind, st.just(bitmap), st.binary(min_size=size, max_size=size))

    return bitmaps(device).flatmap(fill)


def messages_of(device: Peripheral) -> st.SearchStrategy[Message]:
    return st.one_of(
        st.builds(SubReq, bitmaps(device), u16),
        st.builds(DevRead, bitmaps(device)),
        carried(device, DevWrite),
        carried(device, DevData),
    )


raw_data = st.binary(max_size=frames.MAX_PAYLOAD - 2)
without_device: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ping),
    st.builds(SubReq, u16, u16),
    st.builds(SubRes, u16, u16, uids),
    st.builds(DevRead, u16),
    st.builds(DevWrite, u16, raw_data),
    st.builds(DevData, u16, raw_data),
    st.builds(DevDisable),
    st.builds(HbReq, u8),
    st.builds(HbRes, u8),
    st.builds(Error, u8),
)
with_device = st.sampled_from(DEVICES).flatmap(
    lambda device: st.tuples(st.just(device), messages_of(device))
)


def frame_of(message: Message) -> bytes:
    return frames.encode(message)[:-1]


def error_of(text: str, known: catalog.Catalog = CATALOG) -> TextFormatError:
    with pytest.raises(TextFormatError) as caught:
        format_text(text, known)
    return caught.value


def make_write(device: str, **values: Any) -> dict[str, Any]:
    return {"type": "DEV_WRITE", "device": device, "params": values}


class TestInverse:
    @pytest.mark.parametrize(("wire", "value"), GOLDEN.items())
    def test_golden_frames_match_in_both_directions(self, wire: str, value: dict[str, Any]) -> None:
        device = CATALOG[value["device"]] if "device" in value else None
        assert format_message(value, CATALOG).hex() == wire
        assert parse_message(bytes.fromhex(wire), CATALOG, device) == value

    def test_every_message_type_is_covered(self) -> None:
        assert {value["type"] for value in GOLDEN.values()} == set(TYPES)
        assert set(TYPES.values()) == set(FIELDS)

    @settings(deadline=None)
    @given(without_device)
    def test_frame_round_trips(self, message: Message) -> None:
        frame = frame_of(message)
        text = json.dumps(parse_message(frame, CATALOG), allow_nan=False)
        assert format_text(text, CATALOG) == frame

    @settings(deadline=None)
    @given(with_device)
    def test_frame_of_a_known_device_round_trips(self, case: tuple[Peripheral, Message]) -> None:
        device, message = case
        frame = frame_of(message)
        value = parse_message(frame, CATALOG, device)
        assert value["device"] == device.name
        assert format_text(json.dumps(value, allow_nan=False), CATALOG) == frame

    @settings(deadline=None)
    @given(with_device)
    def test_json_round_trips(self, case: tuple[Peripheral, Message]) -> None:
        device, message = case
        value = parse_message(frame_of(message), CATALOG, device)
        assert parse_message(format_message(value, CATALOG), CATALOG, device) == value

    @settings(deadline=None)
    @given(st.integers(-99_999, 99_999), st.integers(-20, 20))
    def test_number_of_five_digits_round_trips(self, digits: int, exponent: int) -> None:
        value = {
            "type": "DEV_DATA",
            "device": "potentiometer",
            "params": {"pot0": float(f"{digits}e{exponent}")},
        }
        assert (
            parse_message(format_message(value, CATALOG), CATALOG, CATALOG["potentiometer"])
            == value
        )

    @settings(deadline=None)
    @given(st.floats(width=32, allow_nan=False))
    def test_short_float_is_the_same_4_byte_float(self, number: float) -> None:
        assert struct.pack("<f", short_float(number)) == struct.pack("<f", number)

    def test_arrays_and_doubles_are_in_wire_order(self) -> None:
        value = make_write(
            "odd-one",
            grid=[[1, -2], [3, 4], [5, 6]],
            far=0.1,
            small=-3,
            flags=[True, False, False, True],
        )
        frame = format_message(value, ODD)
        assert parse_message(frame, ODD, ODD["odd-one"]) == value
        message = frames.decode(frame)
        assert message == DevWrite(
            15, struct.pack("<6hfb4?", 1, -2, 3, 4, 5, 6, 0.1, -3, True, False, False, True)
        )

    @pytest.mark.parametrize(
        ("device", "message", "shown"),
        [
            ("potentiometer", DevData(1, b"\0\0\xc0\x7f"), {"pot0": "0000c07f"}),
            ("polar-bear", DevWrite(1, struct.pack("<f", 1.5)), {"duty_cycle": "0000c03f"}),
            ("polar-bear", DevData(1, struct.pack("<f", 1.5)), {"duty_cycle": 1.5}),
            ("limit-switch", DevData(0b11, b"\2\1"), {"switch0": "02", "switch1": True}),
        ],
    )
    def test_bytes_without_a_value_are_hexadecimal(
        self, device: str, message: Message, shown: dict[str, Any]
    ) -> None:
        value = parse_message(frame_of(message), CATALOG, CATALOG[device])
        assert value["params"] == shown
        assert format_message(value, CATALOG) == frame_of(message)


class TestErrors:
    @pytest.mark.parametrize(
        ("value", "place", "sentence"),
        [
            ([], None, "a message must be an object"),
            ({"tpe": "PING"}, None, '"type" is missing'),
            ({"type": "PNG"}, "type", "did you mean PING?"),
            ({"type": 16}, "type", "unknown type 16"),
            ({"type": "PING", "params": []}, "params", "PING has no field 'params' (known: type)"),
            ({"type": "SUB_REQ", "params": [0]}, None, "'interval' is missing"),
            (
                {"type": "SUB_REQ", "params": [0], "interval": 65536},
                "interval",
                "a whole number of ms, 0 to 65535",
            ),
            (
                {"type": "SUB_REQ", "params": [0], "interval": 0.04},
                "interval",
                "a whole number of ms, 0 to 65535",
            ),
            ({"type": "DEV_READ", "params": [1, 16]}, "16", "0 to 15, not 16"),
            ({"type": "DEV_READ", "params": [1, 1]}, "1]", "1 appears twice"),
            ({"type": "DEV_READ", "params": {"a": 1}}, "params", "params must be a list of ids"),
            ({"type": "DEV_READ", "device": "rfid", "params": [0]}, "0", "rfid has no parameter 0"),
            (
                {"type": "DEV_READ", "device": None, "params": [0]},
                "device",
                "a name or a UID as text",
            ),
            (
                {"type": "DEV_READ", "device": "polar-bare", "params": []},
                "device",
                "did you mean polar-bear?",
            ),
            (
                {"type": "DEV_READ", "device": "field", "params": []},
                "device",
                "'field' is not a Smart Device",
            ),
            ({"type": "DEV_WRITE", "params": {"duty_cycle": 1}}, None, '"device" is missing'),
            ({"type": "DEV_WRITE", "params": [0]}, None, "'data' is missing"),
            (
                {"type": "DEV_WRITE", "params": [0], "data": "0g"},
                "data",
                "bytes of the values in hexadecimal",
            ),
            ({"type": "DEV_WRITE", "params": [0], "data": "00" * 254}, "params", "at most 255 fit"),
            (make_write("rfid", idd=1), "idd", "did you mean id?"),
            (
                make_write("polar-bear", duty_cycle=1.01),
                "duty_cycle",
                "a number, -1 to 1, not 1.01",
            ),
            (
                make_write("polar-bear", duty_cycle=True),
                "duty_cycle",
                "a number, -1 to 1, not true",
            ),
            (
                make_write("polar-bear", duty_cycle="00"),
                "duty_cycle",
                'its 4 bytes in hexadecimal, not "00"',
            ),
            (make_write("polar-bear", duty_cycle=float("nan")), "duty_cycle", "not NaN"),
            (
                make_write("polar-bear", enc_pos=float("inf")),
                "enc_pos",
                "a number that fits 4 bytes, not Infinity",
            ),
            (make_write("polar-bear", enc_pos=10**400), "enc_pos", "a number that fits 4 bytes"),
            (
                make_write("yogi-bear", pid_pos_kp=-0.5),
                "pid_pos_kp",
                "a number, 0 or more, not -0.5",
            ),
            (make_write("limit-switch", switch0=1), "switch0", "true or false, not 1"),
            (
                make_write("encoder", rotation=40000),
                "rotation",
                "a whole number, -32768 to 32767, not 40000",
            ),
            (make_write("encoder", rotation=1.0), "rotation", "a whole number"),
            ({"type": "HB_REQ", "id": -1}, "id", "0 to 255, not -1"),
            ({"type": "ERROR", "code": "BACKOF"}, "code", "did you mean BACKOFF?"),
            ({"type": "ERROR", "code": 256}, "code", "0 to 255, or one of OK"),
            (
                {"type": "SUB_RES", "params": [], "interval": 0, "uid": 5},
                "uid",
                "a decimal UID as text",
            ),
            (
                {"type": "SUB_RES", "params": [], "interval": 0, "uid": str(1 << 88)},
                "uid",
                "below 2**88",
            ),
            (
                {"type": "SUB_RES", "device": "rfid", "params": [], "interval": 0, "uid": "5"},
                "uid",
                "the device id 0, but a rfid has 11",
            ),
        ],
    )
    @pytest.mark.parametrize("indent", [None, 2])
    def test_error_has_its_character(
        self, value: Any, place: str | None, sentence: str, indent: int | None
    ) -> None:
        text = json.dumps(value, indent=indent)
        error = error_of(text)
        assert sentence in error.message
        assert "\n" not in error.message
        at = error.context["character"]
        assert error.message.startswith(f"character {at}: ")
        rest = text[at - 1 :]
        assert (
            rest.startswith(("{", "[") if place is None else (place, f'"{place}"')) or place == "1]"
        )

    def test_elements_of_an_array_are_checked(self) -> None:
        for wrong in ([[1, 2], [3, 4]], [[1, 2], [3, 4], [5, 40000]], [1, 2, 3]):
            assert (
                "grid must be"
                in error_of(json.dumps(make_write("odd-one", grid=wrong)), ODD).message
            )
        assert (
            "a whole number, -3 to 5, not 6"
            in error_of(json.dumps(make_write("odd-one", small=6)), ODD).message
        )
        assert "0.1 or less" in error_of(json.dumps(make_write("odd-one", far=0.2)), ODD).message

    @pytest.mark.parametrize(
        ("text", "character"),
        [
            ("", 1),
            ('{"type": PING}', 10),
            ('{"type": "PING"', 16),
            ('{"type": "PING"} x', 18),
            ('{"type": "PING", "type": "PING"}', 18),
            ('{"type": "DEV_WRITE", "device": "rfid", "params": {"id": 1, "id": 2}}', 61),
            ("[" * 100_000, 1),
            ("9" * 5000, 1),
        ],
    )
    def test_invalid_json_has_its_character(self, text: str, character: int) -> None:
        assert error_of(text).context["character"] == character

    @settings(deadline=None)
    @given(
        st.text(max_size=40)
        | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
    )
    def test_random_text_raises_only_format_errors(self, text: str) -> None:
        assert error_of(text).message.startswith("character ")
        assert all(isinstance(item, dict | TextFormatError) for item in parse_text(text, CATALOG))

    def test_device_is_found_by_type_uid_and_team_name(self) -> None:
        names = {"left_motor": 12 << 72 | 1}
        for text in ("polar-bear", str(12 << 72 | 9), "left_motor"):
            assert find_device(text, CATALOG, names).name == "polar-bear"
        with pytest.raises(DeviceError, match="did you mean left_motor"):
            find_device("left_moter", CATALOG, names)
        with pytest.raises(DeviceError, match="device id 300"):
            find_device(str(300 << 72), CATALOG)


class TestHexadecimal:
    @pytest.mark.parametrize(
        "text",
        [
            "0517010315",
            "05 17 01 03 15",
            "0x05 0x17 0x01 0x03 0x15 0x00",
            "000005170103 1500",
            "0X0517 010315",
        ],
    )
    def test_bytes_may_have_spaces_prefixes_and_delimiters(self, text: str) -> None:
        assert list(parse_text(text, CATALOG)) == [{"type": "HB_REQ", "id": 3}]

    def test_invalid_frame_among_others_has_its_byte(self) -> None:
        good, other, bad, last = parse_text("0210021000 02160216 00 0210021100 0317010216", CATALOG)
        assert (good, other, last) == (
            {"type": "PING"},
            {"type": "DEV_DISABLE"},
            {"type": "HB_REQ", "id": 0},
        )
        assert isinstance(bad, TextFormatError)
        assert bad.context["byte"] == 10
        assert bad.message.startswith("byte 10: ")
        assert "checksum" in bad.message

    @pytest.mark.parametrize(
        ("text", "byte"),
        [("02 1", 1), ("0210zz10", 2), ("0x", 0), ("", 0), ("02 é0", 1), ("+1", 0), ("02_10", 1)],
    )
    def test_invalid_hexadecimal_has_its_byte(self, text: str, byte: int) -> None:
        (error,) = parse_text(text, CATALOG)
        assert isinstance(error, TextFormatError)
        assert error.context["byte"] == byte

    @pytest.mark.parametrize(
        "message", [DevData(1, b"\0" * 3), DevData(0b1000, b"\0"), SubReq(8, 40), DevRead(8)]
    )
    def test_frame_of_another_device_is_refused(self, message: Message) -> None:
        with pytest.raises(RemoteProtocolError):
            parse_message(frame_of(message), CATALOG, CATALOG["limit-switch"])
