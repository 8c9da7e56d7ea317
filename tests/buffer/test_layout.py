"""Blocks match the wire format: ascending ids, little-endian, no padding."""

import ctypes
import itertools
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.catalogs import NUMBERS, SIMPLE, catalogs, wire_size

from rt import catalog
from rt.buffer import Buffer, BufferStore, DeviceBuffer, layout
from rt.catalog import Parameter, Peripheral
from rt.catalog.packing import Packing
from rt.protocol.message import DevData, DevWrite

CATALOG = catalog.load()
LETTERS = dict(
    zip(
        (
            "bool",
            "int8",
            "uint8",
            "int16",
            "uint16",
            "int32",
            "uint32",
            "int64",
            "uint64",
            "float",
            "double",
        ),
        "?bBhHiIqQff",
        strict=True,
    )
)
"""The letters of the ``struct`` module, independent of the code under test."""

peripherals = st.one_of(
    st.sampled_from(list(CATALOG.values())),
    catalogs().map(lambda tables: next(iter(catalog.from_tables(tables).values()))),
)


def format_of(param: Parameter) -> str:
    """Return the ``struct`` format of a parameter, from its type's name."""
    ctype, count = param.ctype, 1
    while issubclass(ctype, ctypes.Array):
        count, ctype = count * ctype._length_, ctype._type_
    name = next(name for name in SIMPLE if Parameter.parse_ctype(name) is ctype)
    return LETTERS[name] * count


def struct_format(peripheral: Peripheral, bitmap: int) -> str:
    return "<" + "".join(format_of(param) for param in peripheral.params if bitmap >> param.id & 1)


def flat(value: Any) -> list[Any]:
    return [item for part in value for item in flat(part)] if isinstance(value, list) else [value]


@given(peripherals)
def test_parameters_have_the_offsets_of_struct(peripheral: Peripheral) -> None:
    block: Any = layout.make_block("block", peripheral.params)
    for param in peripheral.params:
        place = getattr(block, param.name)
        assert place.offset == struct.calcsize(struct_format(peripheral, (1 << param.id) - 1))
        assert (
            place.size
            == struct.calcsize("<" + format_of(param))
            == ctypes.sizeof(param.platform_type)
        )
    assert ctypes.sizeof(block) == struct.calcsize(struct_format(peripheral, peripheral.bitmap()))
    assert Packing(peripheral.params).size == ctypes.sizeof(block)


@pytest.mark.parametrize("name", CATALOG)
def test_catalog_entries_are_in_wire_order(name: str) -> None:
    peripheral = CATALOG[name]
    block: Any = layout.make_block("block", peripheral.params)
    ends = [
        getattr(block, param.name).offset + getattr(block, param.name).size
        for param in peripheral.params
    ]
    assert [getattr(block, param.name).offset for param in peripheral.params] == [0, *ends][
        : len(ends)
    ]
    assert [param.id for param in peripheral.params] == list(range(len(peripheral.params)))


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_packed_like_struct(name: str) -> None:
    block = layout.make_block(
        "block", [Parameter("lead", ctypes.c_bool, 0), Parameter("x", _ctype(name), 1)]
    )
    value = block(True, 77)
    assert bytes(value) == struct.pack("<?" + LETTERS[name], True, 77)


def _ctype(name: str) -> Any:
    return Parameter.parse_ctype(name)


@given(peripherals, st.data())
def test_slices_of_any_bitmap_are_in_wire_order(
    peripheral: Peripheral, data: st.DataObject
) -> None:
    block = Packing(peripheral.params)
    whole = bytes(index % 251 for index in range(block.size))
    bitmap = data.draw(st.integers(0, peripheral.bitmap()))
    length, slices = block.slices(bitmap)
    sizes = [struct.calcsize("<" + format_of(param)) for param in peripheral.params]
    starts = [0, *itertools.accumulate(sizes)]
    wanted = b"".join(
        whole[starts[i] : starts[i] + sizes[i]] for i in range(len(sizes)) if bitmap >> i & 1
    )
    assert b"".join(whole[run.block : run.block + run.length] for run in slices) == wanted
    assert length == len(wanted)
    assert all(
        first.block + first.length < second.block and first.data + first.length == second.data
        for first, second in itertools.pairwise(slices)
    )


@given(catalogs(), st.data())
def test_received_values_match_struct(tables: dict[str, Any], data: st.DataObject) -> None:
    known = catalog.from_tables(tables)
    name = data.draw(st.sampled_from(sorted(known)))
    peripheral = known[name]
    if peripheral.device_id is None:
        return
    buffer = open_private(known, peripheral.device_id)
    bitmap = data.draw(st.integers(0, peripheral.bitmap()))
    size = sum(
        wire_size(tables[name]["params"][param.id]["type"]) for param in chosen(peripheral, bitmap)
    )
    payload = data.draw(st.binary(min_size=size, max_size=size))
    buffer.update(DevData(bitmap, payload))
    items = iter(struct.unpack(struct_format(peripheral, bitmap), payload))
    for param in chosen(peripheral, bitmap):
        wanted = list(itertools.islice(items, len(format_of(param))))
        if param.readable:
            found = flat(buffer.get(param.name))
            assert all(
                a == b or (math.isnan(a) and math.isnan(b))
                for a, b in zip(found, wanted, strict=True)
            )


@given(catalogs(), st.data())
def test_written_values_match_struct(tables: dict[str, Any], data: st.DataObject) -> None:
    known = catalog.from_tables(tables)
    peripheral = known[data.draw(st.sampled_from(sorted(known)))]
    if peripheral.device_id is None:
        return
    buffer = open_private(known, peripheral.device_id)
    values = {param: data.draw(values_of(param)) for param in peripheral.params if param.writeable}
    for param, value in values.items():
        buffer.write(param.name, value)
    messages = [message for message in buffer.emit_dev_rw() if isinstance(message, DevWrite)]
    wanted = b"".join(
        struct.pack("<" + format_of(param), *flat(value)) for param, value in values.items()
    )
    assert b"".join(message.data for message in messages) == wanted
    assert sum(message.params for message in messages) == peripheral.writeable
    assert all(len(message.data) <= 253 for message in messages)


def chosen(peripheral: Peripheral, bitmap: int) -> list[Parameter]:
    return [param for param in peripheral.params if bitmap >> param.id & 1]


def open_private(known: catalog.Catalog, device_id: int) -> DeviceBuffer:
    buffer = BufferStore(known, "", shared=False, lock_timeout=0.01).get_or_open(device_id << 72)
    buffer.valid = True
    return buffer


def values_of(param: Parameter) -> st.SearchStrategy[Any]:
    """Return a strategy for values within the limits; arrays are nested lists."""
    letter = format_of(param)[0]
    if letter == "?":
        one: st.SearchStrategy[Any] = st.booleans()
    elif letter == "f":
        one = st.floats(max(param.lower, -1000), min(param.upper, 1000), width=32)
    else:
        bits = 8 * struct.calcsize("<" + letter)
        least, most = (
            (-(1 << bits - 1), (1 << bits - 1) - 1) if letter.islower() else (0, (1 << bits) - 1)
        )
        one = st.integers(int(max(param.lower, least)), int(min(param.upper, most)))
    ctype, sizes = param.ctype, []
    while issubclass(ctype, ctypes.Array):
        sizes.append(ctype._length_)
        ctype = ctype._type_
    for size in reversed(sizes):
        one = st.lists(one, min_size=size, max_size=size)
    return one


@given(peripherals, peripherals)
def test_hashes_differ_if_and_only_if_layouts_differ(one: Peripheral, two: Peripheral) -> None:
    def known(peripheral: Peripheral) -> Any:
        return peripheral.name, [
            (param.name, format_of(param), param.platform_type, param.readable, param.writeable)
            for param in peripheral.params
        ]

    hashes = [layout.catalog_hash(each.name, each.params, "Buffer") for each in (one, two)]
    assert (hashes[0] == hashes[1]) == (known(one) == known(two))


def test_header_begins_with_magic_version_and_size() -> None:
    buffer_type = Buffer.make_type("limit-switch", CATALOG["limit-switch"].params)
    assert [
        layout.Header.magic.offset,
        layout.Header.version.offset,
        layout.Header.size.offset,
    ] == [0, 8, 12]
    assert layout.Header.catalog_hash.offset == 16
    assert layout.Header.mutex.size == 64
    header = buffer_type.private()._header
    assert (header.magic, header.version, header.size) == (
        layout.MAGIC,
        layout.VERSION,
        buffer_type.size(),
    )


@given(st.lists(st.integers(1, 253), min_size=1, max_size=16), st.data())
def test_values_are_split_into_as_few_messages_as_possible(
    sizes: list[int], data: st.DataObject
) -> None:
    block = Packing(
        [
            Parameter(f"p{number}", ctypes.c_uint8 * size, number)
            for number, size in enumerate(sizes)
        ]
    )
    bitmap = data.draw(st.integers(0, (1 << len(sizes)) - 1))
    parts = block.split(bitmap, 253)
    lengths = [block.slices(part)[0] for part in parts]
    assert sum(parts) == bitmap
    assert all(0 < length <= 253 for length in lengths)
    first = [sizes[(part & -part).bit_length() - 1] for part in parts]
    assert all(
        length + following > 253 for length, following in zip(lengths, first[1:], strict=False)
    )
