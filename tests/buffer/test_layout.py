"""The blocks of every buffer are packed as the wire is: in ascending id, little-endian, without padding."""

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
from rt.protocol.message import DevData, DevWrite

KNOWN = catalog.load()
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
"""The letters of the ``struct`` module, written down here once more so that nothing is compared with itself."""

peripherals = st.one_of(
    st.sampled_from(list(KNOWN.values())),
    catalogs().map(lambda tables: next(iter(catalog.from_tables(tables).values()))),
)


def letters_of(param: Parameter) -> str:
    """The form of a parameter for ``struct``, from the type's name."""
    ctype, count = param.ctype, 1
    while issubclass(ctype, ctypes.Array):
        count, ctype = count * ctype._length_, ctype._type_
    name = next(name for name in SIMPLE if Parameter.parse_ctype(name) is ctype)
    return LETTERS[name] * count


def form_of(peripheral: Peripheral, bitmap: int) -> str:
    return "<" + "".join(letters_of(param) for param in peripheral.params if bitmap >> param.id & 1)


def flat(value: Any) -> list[Any]:
    return [item for part in value for item in flat(part)] if isinstance(value, list) else [value]


@given(peripherals)
def test_every_parameter_stands_where_struct_would_put_it(peripheral: Peripheral) -> None:
    block: Any = layout.make_block("block", peripheral.params)
    for param in peripheral.params:
        place = getattr(block, param.name)
        assert place.offset == struct.calcsize(form_of(peripheral, (1 << param.id) - 1))
        assert (
            place.size
            == struct.calcsize("<" + letters_of(param))
            == ctypes.sizeof(param.platform_type)
        )
    assert ctypes.sizeof(block) == struct.calcsize(form_of(peripheral, peripheral.bitmap()))
    assert layout.Block(peripheral.params).size == ctypes.sizeof(block)


@pytest.mark.parametrize("name", KNOWN)
def test_every_entry_of_the_catalog_stands_in_the_order_of_the_wire(name: str) -> None:
    peripheral = KNOWN[name]
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
def test_the_bytes_of_a_number_are_those_of_struct(name: str) -> None:
    block = layout.make_block(
        "block", [Parameter("lead", ctypes.c_bool, 0), Parameter("x", _ctype(name), 1)]
    )
    value = block(True, 77)
    assert bytes(value) == struct.pack("<?" + LETTERS[name], True, 77)


def _ctype(name: str) -> Any:
    return Parameter.parse_ctype(name)


@given(peripherals, st.data())
def test_any_choice_of_parameters_is_cut_out_in_the_order_of_the_wire(
    peripheral: Peripheral, data: st.DataObject
) -> None:
    block = layout.Block(peripheral.params)
    whole = bytes(index % 251 for index in range(block.size))
    bitmap = data.draw(st.integers(0, peripheral.bitmap()))
    length, slices = block.slices(bitmap)
    sizes = [struct.calcsize("<" + letters_of(param)) for param in peripheral.params]
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
def test_what_a_device_says_is_read_as_struct_reads_it(
    tables: dict[str, Any], data: st.DataObject
) -> None:
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
    items = iter(struct.unpack(form_of(peripheral, bitmap), payload))
    for param in chosen(peripheral, bitmap):
        wanted = list(itertools.islice(items, len(letters_of(param))))
        if param.readable:
            found = flat(buffer.get(param.name))
            assert all(
                a == b or (math.isnan(a) and math.isnan(b))
                for a, b in zip(found, wanted, strict=True)
            )


@given(catalogs(), st.data())
def test_what_is_written_to_a_device_is_packed_as_struct_packs_it(
    tables: dict[str, Any], data: st.DataObject
) -> None:
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
        struct.pack("<" + letters_of(param), *flat(value)) for param, value in values.items()
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
    """Values of a parameter that need no clamping, arrays as nested lists."""
    letter = letters_of(param)[0]
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
def test_two_entries_that_are_laid_out_differently_have_different_hashes(
    one: Peripheral, two: Peripheral
) -> None:
    def known(peripheral: Peripheral) -> Any:
        return peripheral.name, [
            (param.name, letters_of(param), param.platform_type, param.readable, param.writeable)
            for param in peripheral.params
        ]

    hashes = [layout.catalog_hash(each.name, each.params, "Buffer") for each in (one, two)]
    assert (hashes[0] == hashes[1]) == (known(one) == known(two))


def test_a_buffer_begins_with_what_tells_whether_it_is_understood() -> None:
    kind = Buffer.make_type("limit-switch", KNOWN["limit-switch"].params)
    assert [
        layout.Header.magic.offset,
        layout.Header.version.offset,
        layout.Header.size.offset,
    ] == [0, 8, 12]
    assert layout.Header.catalog_hash.offset == 16
    assert layout.Header.mutex.size == 64
    header = kind.private()._header
    assert (header.magic, header.version, header.size) == (
        layout.MAGIC,
        layout.VERSION,
        kind.size(),
    )


@given(st.lists(st.integers(1, 253), min_size=1, max_size=16), st.data())
def test_values_are_split_over_as_few_messages_as_their_order_allows(
    sizes: list[int], data: st.DataObject
) -> None:
    block = layout.Block(
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
