"""Tests of the resolution of device names, and of its errors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt.catalog.device_names import name_of, not_connected, resolve_uid
from rt.errors import DeviceError
from rt.protocol.uid import UID_END
from rt.text import clip

NAMES = {"left_motor": 12 << 72 | 1, "bumper": 5, "7": 70}


@settings(deadline=None)
@given(st.integers(0, UID_END - 1))
def test_number_is_a_uid(uid: int) -> None:
    assert resolve_uid(str(uid), {}) == uid


def test_name_precedes_number() -> None:
    assert resolve_uid("bumper", NAMES) == 5
    assert resolve_uid("7", NAMES) == 70
    assert name_of(5, NAMES) == "bumper"
    assert name_of(6, NAMES) == "6"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("left_moter", "did you mean left_motor?"),
        ("LEFT_MOTOR", "did you mean left_motor?"),
        ("claw", "or one of left_motor, bumper, 7; devices are named in rt.toml, below [dev_name]"),
        (str(UID_END), "too large for a UID"),
        ("9" * 10_000, "too large for a UID"),
        ("-1", "use a UID"),
        ("٣", "use a UID"),
        ("", "use a UID"),
    ],
)
def test_error_for_unknown_name_lists_known_names(text: str, hint: str) -> None:
    with pytest.raises(DeviceError, match="there is no device") as caught:
        resolve_uid(text, NAMES)
    assert hint in caught.value.message
    assert caught.value.context == {"uid": clip(text)}


def test_error_without_names_says_where_to_define_them() -> None:
    with pytest.raises(
        DeviceError, match=r"or a name; devices are named in rt\.toml, below \[dev_name\]"
    ):
        resolve_uid("claw", {})


def test_error_for_disconnected_device_lists_connected_ones() -> None:
    error = not_connected(12 << 72 | 1, NAMES, [9, 5])
    assert error.message == "the device left_motor is not connected; connected: bumper, 9"
    assert not_connected(9, {}, []).message == "the device 9 is not connected; connected: none"
