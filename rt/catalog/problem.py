"""Problems of a catalog, and their messages: the position, the value, and what is expected."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from rt.text import WORD_MAX, clip, nearest, shown

_NO_VALUE: Final = object()

S = TypeVar("S", bound=msgspec.Struct)
Report = Callable[..., None]
"""Reports a problem: the key, what is expected, and the value if the message shows it."""


class Problem(msgspec.Struct, frozen=True):
    """One problem of a catalog.

    Attributes:
        table: The peripheral's table.
        param: The name of the parameter, or None for the table itself.
        field: The key in the table or parameter, empty for all of it.
        sentence: The message, which begins with the name of the table.
    """

    table: str
    param: str | None
    field: str
    sentence: str


def convert(struct: type[S], table: Mapping[str, Any], report: Report) -> S | None:
    """Return a table as a struct, or None after reporting unknown, missing and invalid keys."""
    fields = _fields(struct)
    values: dict[str, Any] = {}
    valid = True
    table = {str(key): value for key, value in table.items()}
    for key, value in table.items():
        if key not in fields:
            hint = nearest(key, fields, cutoff=0.6) or f"; use one of {', '.join(fields)}"
            report(key, f"unknown key{hint}")
            valid = False
            continue
        try:
            values[key] = msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as error:
            report(key, _expected(error), value)
            valid = False
    for field in fields.values():
        if field.required and field.name not in table:
            report(field.name, "missing")
            valid = False
    return struct(**values) if valid else None


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
    where = f" for element {element[1]}" if element else ""
    return f"expected {dict(_WORDS).get(match[1], match[1])}{where}"


def reporter(
    problems: list[Problem], table: str, where: str = "", param: str | None = None
) -> Report:
    """Return a function that adds problems of a table, or of the parameter at ``where``."""

    def report(field: str, allowed: str, value: object = _NO_VALUE, /) -> None:
        key = clip(field)
        what = (
            key if value is _NO_VALUE else f"{key} = {shown(value, WORD_MAX)}".removeprefix(" = ")
        )
        place = " ".join(part for part in (f"[{clip(table)}]", where, what) if part)
        problems.append(Problem(table, param, field, f"{place}: {allowed}"))

    return report
