import ctypes
import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt import catalog
from rt.catalog import OutOfRangeWarning, Parameter
from rt.errors import CatalogError, DeviceError, RemoteProtocolError

KNOWN = catalog.load()


def test_the_built_in_catalog_has_every_device_of_the_kit() -> None:
    ids = {name: peripheral.device_id for name, peripheral in KNOWN.items()}
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


def test_a_device_is_found_by_the_id_in_its_uid() -> None:
    assert KNOWN.of_uid(12 << 72 | 5).name == "polar-bear"
    with pytest.raises(DeviceError, match="device id 99"):
        KNOWN.of_uid(99 << 72)


def test_golden_values_pack_as_on_the_wire() -> None:
    assert KNOWN["polar-bear"].pack({"duty_cycle": -0.5}) == (1, bytes.fromhex("000000bf"))
    assert KNOWN["limit-switch"].pack({"switch2": False, "switch0": True}) == (0b101, b"\x01\x00")
    assert KNOWN["rfid"].pack({"id": 0xDEADBEEF, "tag_detect": 1}) == (0b11, bytes.fromhex("efbeadde01"))


@given(st.data())
def test_values_of_any_device_survive_the_wire(data: st.DataObject) -> None:
    peripheral = data.draw(st.sampled_from([device for device in KNOWN.values() if device.device_id is not None]))
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


def test_values_of_the_wrong_length_are_malformed() -> None:
    with pytest.raises(RemoteProtocolError, match="take 4 bytes, not 3"):
        KNOWN["polar-bear"].unpack(1, bytes(3))
    with pytest.raises(RemoteProtocolError, match="no parameters beyond 3"):
        KNOWN["limit-switch"].unpack(0b1000, bytes(1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[a]\nparams = [{name = "x", type = "flot"}]',
            r"bad\.toml:1: \[a\] params\[0\] 'x' type 'flot' is not a type",
        ),
        (
            '\n\n[a]\nparams = [{name = "x", type = "float", lower = "0"}]',
            r"bad\.toml:3: \[a\] params\[0\]\.lower: Expected `float`",
        ),
        (
            '[a]\nparams = [{name = "x", type = "float", lower = 2, upper = 1}]',
            "lower = 2.0 is greater than upper = 1.0",
        ),
        ('[a]\nparams = [{name = "x", type = "bool"}, {name = "x", type = "bool"}]', "'x' stands twice"),
        (
            "[a]\ndevice_id = 1\nparams = []\n[b]\ndevice_id = 1\nparams = []",
            r":4: \[b\] device_id = 1 is taken by \[a\]",
        ),
        ("[a]\ndevice_id = 70000\nparams = []", "device_id: Expected `int` <= 65535"),
        ("[a]\ncolour = 1\nparams = []", "unknown field `colour`"),
        ("[a", "end of a table declaration"),
        ("[A]\nparams = []", "name of a peripheral"),
    ],
)
def test_a_bad_catalog_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        catalog.parse(text, "bad.toml")


def test_a_smart_device_has_at_most_16_parameters() -> None:
    params = ", ".join(f'{{name = "p{number}", type = "bool"}}' for number in range(17))
    with pytest.raises(CatalogError, match="17 parameters"):
        catalog.parse(f"[big]\ndevice_id = 1\nparams = [{params}]")
    assert len(catalog.parse(f"[big]\nparams = [{params}]")["big"].params) == 17


def test_a_value_beyond_its_limits_is_clamped_and_only_clamp_warns_of_it() -> None:
    duty = KNOWN["polar-bear"].param("duty_cycle")
    with pytest.warns(OutOfRangeWarning, match="duty_cycle = 1.5 is out of its range"):
        assert duty.clamp(1.5) == 1.0
    with warnings.catch_warnings(action="error"):
        assert duty.checked(1.5) == 1.0
        assert duty.checked(-math.inf) == -1.0


def test_an_integer_beyond_its_type_does_not_wrap_around() -> None:
    mode = KNOWN["koala-bear"].param("drive_mode_a")
    assert mode.checked(300) == 255


def test_values_of_the_wrong_kind_are_refused() -> None:
    duty = KNOWN["polar-bear"].param("duty_cycle")
    with pytest.raises(ValueError, match="NaN"):
        duty.checked(math.nan)
    with pytest.raises(TypeError, match="takes a number"):
        duty.checked("fast")
    with pytest.raises(TypeError, match="True or False"):
        KNOWN["team-flag"].param("led1").checked(2)
    with pytest.raises(TypeError, match="an integer"):
        KNOWN["koala-bear"].param("drive_mode_a").checked(1.5)


def test_an_unknown_parameter_is_answered_with_the_nearest() -> None:
    with pytest.raises(DeviceError, match="did you mean 'duty_cycle'"):
        KNOWN["polar-bear"].param("duty_cycel")
