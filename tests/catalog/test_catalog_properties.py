"""Property tests: valid catalogs load as written, and invalid ones are refused with an error."""

import copy
import functools
import random
import tomllib
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.catalogs import catalogs

from rt import catalog
from rt.catalog.load import builtin_path
from rt.errors import CatalogError

TEXT = builtin_path().read_text("utf-8")
TABLES: dict[str, Any] = tomllib.loads(TEXT)

odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63, 2**64]),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.dates(),
    st.sampled_from(["bool", "int8[2]", "uint8[9999999999]", "float[", "class", "x\n", "_fields_"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def outcome(load: Callable[[], catalog.Catalog]) -> catalog.Catalog | CatalogError:
    try:
        return load()
    except CatalogError as error:
        return error


def accepted(load: Callable[[], catalog.Catalog]) -> bool:
    found = outcome(load)
    if isinstance(found, CatalogError):
        assert str(found).startswith("catalog:")
        return False
    assert all(
        peripheral.bitmap() == (1 << len(peripheral.params)) - 1 for peripheral in found.values()
    )
    return True


@given(catalogs())
def test_valid_catalog_is_loaded_as_written(tables: dict[str, Any]) -> None:
    loaded = catalog.from_tables(tables)
    assert list(loaded) == list(tables)
    for name, table in tables.items():
        peripheral = loaded[name]
        assert peripheral.device_id == table.get("device_id")
        assert [(p.name, p.readable, p.writeable, p.subscribed) for p in peripheral.params] == [
            (raw["name"], raw["readable"], raw["writeable"], raw["subscribed"])
            for raw in table["params"]
        ]
        assert [param.id for param in peripheral.params] == list(range(len(peripheral.params)))
        assert [param.lower for param in peripheral.params] == [
            raw.get("lower", float("-inf")) for raw in table["params"]
        ]


@given(st.data())
@settings(max_examples=200)
def test_odd_value_in_the_tables_is_accepted_or_refused(data: st.DataObject) -> None:
    tables = copy.deepcopy(TABLES)
    for _ in range(data.draw(st.integers(1, 3))):
        position: Any = tables
        while True:
            keys = list(position) if isinstance(position, dict) else list(range(len(position)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(position[key], (dict, list)) or data.draw(st.integers(0, 3)) == 0:
                what = data.draw(st.sampled_from(["replace", "remove", "add"]))
                if what == "replace":
                    position[key] = data.draw(odd_values)
                elif what == "remove":
                    del position[key]
                elif isinstance(position, dict):
                    position[
                        data.draw(st.sampled_from(["id", "lower", "colour", "subscribed"]))
                    ] = data.draw(odd_values)
                else:
                    position.append(data.draw(odd_values))
                break
            position = position[key]
    accepted(lambda: catalog.from_tables(tables))


@given(st.integers(0, len(TEXT) - 1), st.integers(0, 30), st.text(max_size=6))
@settings(max_examples=200)
def test_damaged_text_is_accepted_or_refused(start: int, length: int, insertion: str) -> None:
    accepted(lambda: catalog.parse(TEXT[:start] + insertion + TEXT[start + length :]))


def test_typing_errors_are_accepted_or_refused() -> None:
    rng = random.Random(2026)
    letters = "abcxyz0189_-.,={}[]\"'#\n \t"
    outcomes = set()
    for _ in range(300):
        text = list(TEXT)
        for _ in range(rng.randrange(1, 4)):
            text[rng.randrange(len(text))] = rng.choice(letters)
        outcomes.add(accepted(functools.partial(catalog.parse, "".join(text))))
    assert outcomes == {True, False}


@given(
    st.recursive(
        odd_values,
        lambda inner: st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=3),
    )
)
def test_any_tables_are_accepted_or_refused(value: Any) -> None:
    raw: list[Any] = [
        {"a": value},
        {"a": {"params": value}},
        {"a": {"params": [value]}},
        {7: value},
    ]
    for tables in raw:
        accepted(functools.partial(catalog.from_tables, tables))
