"""Tests of the values of emulated devices: packed and unpacked by the codec of the catalog."""

import ctypes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt import catalog
from rt.catalog import Parameter, Peripheral
from rt.emulator.values import checked, initial
from rt.errors import RemoteProtocolError
from rt.protocol.message import VALUES_MAX

CATALOG = catalog.load()
DEVICES = [peripheral for peripheral in CATALOG.values() if peripheral.device_id is not None]
WIDE = Peripheral(
    name="wide",
    device_id=50,
    params=tuple(
        Parameter(f"p{number}", ctypes.c_uint8 * (40 + number), number) for number in range(16)
    ),
)


@given(st.sampled_from(DEVICES), st.integers(0, 0xFFFF), st.data())
def test_values_round_trip(peripheral: Peripheral, bitmap: int, data: st.DataObject) -> None:
    bitmap &= peripheral.bitmap()
    numbers = st.integers(-1000, 1000)
    values: dict[str, Any] = {
        param.name: param.checked(_any(param, data.draw(numbers))) for param in peripheral.params
    }
    payload = peripheral.packing.pack(bitmap, values)
    wanted = {name: values[name] for name in peripheral.names(bitmap)}
    assert peripheral.pack(wanted) == (bitmap, payload)
    assert peripheral.packing.unpack(bitmap, payload) == wanted
    assert peripheral.unpack(bitmap, payload) == wanted


@given(st.sampled_from([*DEVICES, WIDE]), st.integers(0, 0xFFFF), st.binary(max_size=VALUES_MAX))
def test_any_bytes_are_values_or_an_error(
    peripheral: Peripheral, bitmap: int, payload: bytes
) -> None:
    try:
        values = peripheral.unpack(bitmap, payload)
    except RemoteProtocolError:
        return
    assert list(values) == peripheral.names(bitmap)


@given(st.integers(0, 0xFFFF))
def test_payloads_are_short_enough_and_complete(bitmap: int) -> None:
    values = {param.name: initial(param) for param in WIDE.params}
    parts = WIDE.packing.split(bitmap, VALUES_MAX)
    assert all(len(WIDE.packing.pack(part, values)) <= VALUES_MAX for part in parts)
    assert sum(parts) == bitmap
    ids = [number for part in parts for number in range(16) if part >> number & 1]
    assert ids == sorted(ids)


def test_nested_list_fills_array_of_arrays() -> None:
    param = Parameter("grid", ctypes.c_int16 * 2 * 3, 0)
    assert checked(param, [[1, 2], [3, 4], [5]]) == bytes.fromhex("010002000300040005000000")
    assert checked(param, bytes(12)) == bytes(12) == initial(param)


def test_bitmap_with_unknown_parameters_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="has only 3 parameters"):
        CATALOG["limit-switch"].unpack(0b1000, b"\0")


def _any(param: Parameter, number: int) -> object:
    return bool(number % 2) if param.ctype is ctypes.c_bool else number
