"""What is wrong in a catalog, as sentences: the place, the value, and what is allowed."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from rt.text import closest

NO_VALUE: Final = object()
"""Stands for the value where none has to be shown."""
_SHOWN = 60

S = TypeVar("S", bound=msgspec.Struct)
Report = Callable[[str, object, str], None]
"""Notes a fault: the key, the value or ``NO_VALUE``, and what is allowed."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong in a catalog.

    Attributes:
        table: The peripheral's table.
        param: The name of the parameter, or None if the fault is the table's own.
        field: The key within the table or the parameter, empty for the whole of it.
        sentence: What is wrong and what is allowed, from the table's name on.
    """

    table: str
    param: str | None
    field: str
    sentence: str


def convert(kind: type[S], table: Mapping[str, Any], report: Report) -> S | None:
    """The table as a struct, or None after every key that is unknown, missing or of the wrong kind has been said."""
    fields = _fields(kind)
    values: dict[str, Any] = {}
    good = True
    table = {str(key): value for key, value in table.items()}
    for key, value in table.items():
        if key not in fields:
            report(key, NO_VALUE, f"there is no such key{_nearest(key, fields)}")
            good = False
            continue
        try:
            values[key] = msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as error:
            report(key, value, _expected(error))
            good = False
    for field in fields.values():
        if field.required and field.name not in table:
            report(field.name, NO_VALUE, "it is missing")
            good = False
    return kind(**values) if good else None


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(kind)}


_WORDS = (
    ("int | float | null", "a number"),
    ("float | null", "a number"),
    ("int | null", "a whole number"),
    ("bool | null", "true or false"),
    ("int", "a whole number"),
    ("float", "a number"),
    ("str", "text"),
    ("bool", "true or false"),
    ("array", "an array of tables"),
    ("object", "a table"),
)


def _expected(error: msgspec.ValidationError) -> str:
    what, _, where = str(error).partition(" - at ")
    match = re.match(r"Expected `([^`]*)`", what)
    if match is None:
        return f"{what[:1].lower()}{what[1:]}"
    element = re.search(r"\[(\d+)\]", where)
    return (
        f"its element {element[1]}" if element else "it"
    ) + f" has to be {dict(_WORDS).get(match[1], match[1])}"


def _nearest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = closest(word, known, cutoff=0.6)
    return f": use one of {', '.join(known)}" if near is None else f": did you mean {near!r}?"


def reporter(
    problems: list[Problem], table: str, where: str = "", param: str | None = None
) -> Report:
    """A function that notes faults of a table, or of the parameter that ``where`` names in messages."""

    def report(field: str, value: object, allowed: str, /) -> None:
        key = _short(field)
        what = key if value is NO_VALUE else f"{key} = {shown(value)}".removeprefix(" = ")
        place = " ".join(part for part in (f"[{_short(table)}]", where, what) if part)
        problems.append(Problem(table, param, field, f"{place}: {allowed}"))

    return report


def shown(value: object) -> str:
    """A value as a message shows it: short, and on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return _short(repr(value))
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"


def _short(text: str) -> str:
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
