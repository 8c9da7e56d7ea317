"""The linter's output: one record for each finding, in the format of pylint's JSON.

Invariant: every record can be encoded, whatever the team code contains. Text is cut to a maximum
length, and characters that no encoding supports are escaped.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

MAX_RECORDS = 500
"""Maximum number of records; one more tells how many were left out."""
MAX_FINDINGS = 200
"""Maximum number of records of one check in one module."""
MAX_CHARACTERS = 500
"""Maximum length of a message."""

Type = Literal["error", "warning", "fatal"]


class Record(msgspec.Struct, frozen=True, kw_only=True, rename={"message_id": "message-id"}):
    """One finding.

    Attributes:
        type: "error" (the program fails or does the wrong thing), "warning" (it may), "fatal" (it
            could not be checked).
        module: The name by which the module is imported.
        obj: The function or class with the finding, such as ``teleop_main`` or ``Arm.lift``; empty
            at module level.
        line: From 1.
        column: From 0, in characters.
        path: The file, relative to the robot's directory if it is in there.
        symbol: The check's name, such as ``unknown-device``; for pyflakes the name of its message
            class.
        message: One sentence.
        message_id: ``message-id`` in JSON: RT001 and so on for rt's own checks, F401 and so on, as
            in flake8 and ruff, for pyflakes.
    """

    type: Type
    module: str
    obj: str
    line: int
    column: int
    path: str
    symbol: str
    message: str
    message_id: str

    @property
    def fails(self) -> bool:
        """Whether the program should not be run."""
        return self.type != "warning"

    def text(self) -> str:
        """Format the record for editors and terminals, with columns from 1."""
        place = f"{self.path}:{self.line}:{self.column + 1}"
        return f"{place}: {self.type}: {self.message} [{self.symbol}]"


def record(
    type_: Type,
    path: str,
    symbol: str,
    message_id: str,
    message: str,
    *,
    module: str = "",
    obj: str = "",
    line: int = 1,
    column: int = 0,
) -> Record:
    """Create a record with texts that can be encoded."""
    return Record(
        type=type_,
        module=clean(module),
        obj=clean(obj),
        line=max(line, 1),
        column=max(column, 0),
        path=clean(path),
        symbol=symbol,
        message=clean(message),
        message_id=message_id,
    )


def clean(text: str) -> str:
    r"""Return a text on one line, cut and escaped so that it can be encoded.

    Examples:
        >>> clean("no device" + chr(10) + "is named" + chr(0xD800))
        'no device is named\\ud800'
    """
    short = text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 3]}..."
    if short.isascii() and short.isprintable():
        return short
    printable = "".join(
        character if character.isprintable() else _escaped(character) for character in short
    )
    return printable.encode("utf-8", "backslashreplace").decode("utf-8")


def _escaped(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")


def sort_records(records: Iterable[Record], limit: int = MAX_RECORDS) -> list[Record]:
    """Sort records by file and position, without duplicates, at most `MAX_RECORDS`.

    The files keep the order of their first records, so the main module is first.

    Args:
        records: The records.
        limit: How many are returned; one more tells how many were left out.
    """
    unique = list(dict.fromkeys(records))
    files = {
        path: number for number, path in enumerate(dict.fromkeys(each.path for each in unique))
    }
    unique.sort(key=lambda each: (files[each.path], each.line, each.column, each.message_id))
    if len(unique) <= limit:
        return unique
    # Warnings must not displace errors.
    chosen = set(sorted(unique, key=lambda each: not each.fails)[:limit])
    left = len(unique) - limit
    last = record(
        "warning",
        unique[0].path,
        "too-many-records",
        "RT905",
        f"{left} more records are not shown: fix these first",
        module=unique[0].module,
    )
    return [*(each for each in unique if each in chosen), last]
