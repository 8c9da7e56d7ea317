"""Hypothesis strategies for catalogs: tables that are structured like catalog.toml."""

import keyword
import string
from typing import Any

from hypothesis import strategies as st

SIMPLE = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float": 4,
    "double": 4,
}
"""Bytes on the wire by name of the type."""

NUMBERS = tuple(name for name in SIMPLE if name != "bool")
_LETTERS = string.ascii_lowercase

param_names = st.builds(
    str.__add__, st.sampled_from(_LETTERS), st.text(_LETTERS + string.digits + "_", max_size=8)
).filter(lambda name: not keyword.iskeyword(name))
table_names = st.builds(
    str.__add__, st.sampled_from(_LETTERS), st.text(_LETTERS + string.digits, max_size=8)
)
shapes = st.lists(st.integers(1, 4), max_size=2)
intervals = st.floats(0.001, 65.535)


@st.composite
def parameters(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Generate a parameter with a name."""
    shape = draw(shapes)
    base = draw(st.sampled_from(sorted(SIMPLE)))
    readable, writeable = draw(st.sampled_from([(True, False), (True, True), (False, True)]))
    raw: dict[str, Any] = {"name": name, "type": base + "".join(f"[{size}]" for size in shape)}
    if base in NUMBERS and not shape and draw(st.booleans()):
        least, most = (0, 100) if base.startswith("u") else (-100, 100)
        raw["lower"], raw["upper"] = sorted(
            draw(st.tuples(st.integers(least, most), st.integers(least, most)))
        )
    return raw | {
        "readable": readable,
        "writeable": writeable,
        "subscribed": readable and draw(st.booleans()),
    }


@st.composite
def peripherals(draw: st.DrawFn, device_id: int | None) -> dict[str, Any]:
    """Generate the table of a peripheral, or of a Smart Device if there is a device id."""
    names = draw(st.lists(param_names, unique=True, max_size=16))
    table: dict[str, Any] = {"params": [draw(parameters(name)) for name in names]}
    if device_id is not None:
        table["device_id"] = device_id
        for key in draw(
            st.sets(st.sampled_from(["sub_interval", "write_interval", "heartbeat_interval"]))
        ):
            table[key] = draw(intervals)
    return table


@st.composite
def catalogs(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a valid catalog: tables by name."""
    names = draw(st.lists(table_names, unique=True, min_size=1, max_size=4))
    ids = draw(
        st.lists(st.integers(0, 0xFFFF), unique=True, min_size=len(names), max_size=len(names))
    )
    return {
        name: draw(peripherals(draw(st.sampled_from([None, device_id]))))
        for name, device_id in zip(names, ids, strict=True)
    }


def wire_size(type_specifier: str) -> int:
    """Return the bytes of a value on the wire, computed from the text of its type."""
    base, *sizes = type_specifier.replace("]", "").split("[")
    size = SIMPLE[base]
    for each in sizes:
        size *= int(each)
    return size
