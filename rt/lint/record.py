"""What the linter says: one record for each fault, in the shape of pylint's JSON, so that tools which know that know this.

The rule of this module: whatever stands in the team's code, a record can be sent. Text is cut to a
length and cleaned of what no encoding carries.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

MAX_RECORDS = 500
"""How many records there are at most; one more says how many were left out."""
MAX_FINDINGS = 200
"""How many records of one kind there are of one module at most."""
MAX_CHARACTERS = 500
"""How long a message may be."""

Type = Literal["error", "warning", "fatal"]


class Record(msgspec.Struct, frozen=True, kw_only=True, rename={"message_id": "message-id"}):
    """One fault.

    Attributes:
        type: "error" (the program fails or does not do what it says), "warning" (it may), "fatal"
            (it could not be looked at).
        module: The module's name, as it is imported.
        obj: The function or class that the fault is in, e.g. ``teleop_main`` or ``Arm.lift``; empty
            at the module's level.
        line: From 1.
        column: From 0, in characters.
        path: The file, relative to the robot's directory where it stands in that.
        symbol: What is wrong, in a word: of rt's own checks e.g. ``unknown-device``, of pyflakes'
            the name of its message class.
        message: One sentence.
        message_id: ``message-id`` in JSON: RT001 and so on of rt's own checks, F401 and so on (as
            flake8 and ruff have them) of pyflakes'.
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
        """Whether the program should not be run as it is."""
        return self.type != "warning"

    def text(self) -> str:
        """The record as editors and terminals expect it; columns are counted from 1 there."""
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
    """Make a record of which every text can be sent."""
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
    r"""The text on one line, without what UTF-8 cannot carry and not longer than ``MAX_CHARACTERS``.

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


def sort_records(records: Iterable[Record]) -> list[Record]:
    """The records by file and place, each once and not more than ``MAX_RECORDS``; the program's own file stays first."""
    unique = list(dict.fromkeys(records))
    files = {
        path: number for number, path in enumerate(dict.fromkeys(each.path for each in unique))
    }
    unique.sort(key=lambda each: (files[each.path], each.line, each.column, each.message_id))
    if len(unique) <= MAX_RECORDS:
        return unique
    # What fails must not be crowded out by what only may.
    kept = sorted(unique, key=lambda each: not each.fails)[:MAX_RECORDS]
    chosen = set(kept)
    left = len(unique) - MAX_RECORDS
    last = record(
        "warning",
        unique[0].path,
        "too-many-records",
        "RT905",
        f"{left} more records are not shown: correct these first",
        module=unique[0].module,
    )
    return [*(each for each in unique if each in chosen), last]
