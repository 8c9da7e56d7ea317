"""Tests of the built-in catalog, parameters and packed values."""

import ctypes
import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt import catalog
from rt.catalog import OutOfRangeWarning, Parameter
from rt.errors import DeviceError, RemoteProtocolError

CATALOG = catalog.load()


def test_built_in_catalog_has_every_device_of_the_kit() -> None:
    ids = {name: peripheral.device_id for name, peripheral in CATALOG.items()}
    assert ids == {
        "limit-switch": 0,
        "line-follower": 1,
        "potentiometer": 2,
        "encoder": 3,
        "battery": 4,
        "team-flag": 5,
        "servo-motor": 7,
        "yogi-bear": 10,
        "rfid": 11,
        "polar-bear": 12,
        "koala-bear": 13,
        "gamepad": None,
        "field": None,
    }


def test_device_type_is_found_by_uid() -> None:
    assert CATALOG.of_uid(12 << 72 | 5).name == "polar-bear"
    with pytest.raises(DeviceError, match="device id 99"):
        CATALOG.of_uid(99 << 72)


def test_golden_values_match_the_wire_format() -> None:
    assert CATALOG["polar-bear"].pack({"duty_cycle": -0.5}) == (1, bytes.fromhex("000000bf"))
    assert CATALOG["limit-switch"].pack({"switch2": False, "switch0": True}) == (0b101, b"\x01\x00")
    assert CATALOG["rfid"].pack({"id": 0xDEADBEEF, "tag_detect": 1}) == (
        0b11,
        bytes.fromhex("efbeadde01"),
    )


@given(st.data())
def test_values_of_any_device_round_trip(data: st.DataObject) -> None:
    peripheral = data.draw(
        st.sampled_from([device for device in CATALOG.values() if device.device_id is not None])
    )
    chosen = data.draw(st.lists(st.sampled_from(peripheral.params), unique=True))
    values = {param.name: data.draw(_values_of(param)) for param in chosen}
    assert peripheral.unpack(*peripheral.pack(values)) == values


def _values_of(param: Parameter) -> st.SearchStrategy[float]:
    if param.is_real:
        return st.floats(width=32, allow_nan=False)
    bits = 8 * ctypes.sizeof(param.ctype)
    if param.ctype is ctypes.c_bool:
        return st.booleans()
    return (
        st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
        if param.format.islower()
        else st.integers(0, (1 << bits) - 1)
    )


def test_values_of_wrong_length_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="expected 4 bytes of values, got 3"):
        CATALOG["polar-bear"].unpack(1, bytes(3))
    with pytest.raises(RemoteProtocolError, match="has only 3 parameters"):
        CATALOG["limit-switch"].unpack(0b1000, bytes(1))


def test_value_beyond_its_limits_is_clamped() -> None:
    duty = CATALOG["polar-bear"].param("duty_cycle")
    with pytest.warns(OutOfRangeWarning, match="duty_cycle = 1.5 is out of range"):
        assert duty.clamp(1.5) == 1.0
    with warnings.catch_warnings(action="error"):
        assert duty.checked(1.5) == 1.0
        assert duty.checked(-math.inf) == -1.0


def test_integer_beyond_its_type_does_not_wrap_around() -> None:
    mode = CATALOG["koala-bear"].param("drive_mode_a")
    assert mode.checked(300) == 255


def test_values_of_wrong_type_are_refused() -> None:
    duty = CATALOG["polar-bear"].param("duty_cycle")
    for check in (duty.checked, duty.clamp):
        with pytest.raises(ValueError, match="NaN"):
            check(math.nan)
    with pytest.raises(TypeError, match="must be a number"):
        duty.checked("fast")
    with pytest.raises(TypeError, match="must be True or False"):
        CATALOG["team-flag"].param("led1").checked(2)
    with pytest.raises(TypeError, match="must be an integer"):
        CATALOG["koala-bear"].param("drive_mode_a").checked(1.5)


def test_error_for_unknown_parameter_suggests_the_nearest() -> None:
    with pytest.raises(DeviceError, match="did you mean duty_cycle"):
        CATALOG["polar-bear"].param("duty_cycel")


def test_number_without_limits_is_clamped_to_its_type() -> None:
    position = CATALOG["polar-bear"].param("enc_pos")
    greatest = position.checked(math.inf)
    assert ctypes.c_float(greatest).value == greatest
    assert math.isfinite(greatest)
    assert position.checked(10**400) == greatest
    assert position.checked(-(10**400)) == -greatest


def test_arrays_round_trip_in_their_shape() -> None:
    table = {
        "device_id": 9,
        "params": [{"name": "grid", "type": "uint8[2][3]"}, {"name": "end", "type": "bool"}],
    }
    grid = catalog.from_tables({"x": table})["x"]
    values = {"grid": [[1, 2], [3, 4], [5, 6]], "end": True}
    assert grid.pack(values) == (0b11, bytes([1, 2, 3, 4, 5, 6, 1]))
    assert grid.unpack(0b11, bytes([1, 2, 3, 4, 5, 6, 1])) == values
    assert grid.param("grid").initial == [[0, 0], [0, 0], [0, 0]]
    for wrong in ([[1, 2]], [[1], [2], [3]], 7, [[1, 2], [3, 4], [5, 256]]):
        with pytest.raises(TypeError, match="does not fit the parameters of x"):
            grid.pack({"grid": wrong})


def test_number_beyond_a_float_is_not_packed() -> None:
    with pytest.raises(TypeError, match="does not fit"):
        CATALOG["polar-bear"].pack({"enc_pos": 1e39})


def test_every_element_of_an_array_is_checked() -> None:
    grid = Parameter("grid", Parameter.parse_ctype("uint8[2][2]"), 0)
    assert grid.checked([[1, 300], (-1, True)]) == [[1, 255], [0, 1]]
    with pytest.raises(TypeError, match="grid must be an integer"):
        grid.checked([[1, 2], [3, "4"]])
    with pytest.raises(TypeError):
        grid.checked([1, 2])
    with pytest.raises(ValueError, match="NaN"):
        Parameter("path", ctypes.c_float * 2, 0).checked([1.0, math.nan])
