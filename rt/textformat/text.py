"""Messages as JSON and as hexadecimal text, and the positions of errors in it.

Characters of a text are counted from 1, as in an editor; bytes of a frame from 0, as an offset.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rt.catalog.load import Catalog
from rt.catalog.peripheral import Peripheral
from rt.errors import RemoteProtocolError
from rt.protocol.frames import DELIMITER
from rt.textformat.message import format_message, parse_message
from rt.textformat.value import TextFormatError

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


def format_text(text: str, catalog: Catalog, names: Mapping[str, int] | None = None) -> bytes:
    """Return the frame of a message in JSON, without its delimiter.

    Raises:
        TextFormatError: The text is not JSON, or not a message. The error begins with the position,
            and its context has the ``character``.
    """
    try:
        value = json.loads(text, object_pairs_hook=_reject_duplicates)
    except json.JSONDecodeError as error:
        raise _at(error.pos + 1, f"not JSON: {error.msg}") from None
    except TextFormatError as error:
        raise _at(_find_duplicate(text, error.context["path"][0]) + 1, error.message) from None
    except (ValueError, RecursionError) as error:
        # A number with thousands of digits, or excessive depth.
        raise _at(1, f"too large for a message: {error}") from None
    try:
        return format_message(value, catalog, names)
    except TextFormatError as error:
        raise _at(_character(text, error.context["path"]) + 1, error.message) from None


def parse_text(
    text: str, catalog: Catalog, device: Peripheral | None = None
) -> Iterator[dict[str, Any] | TextFormatError]:
    """Yield the messages of frames in hexadecimal in order, or the error of an invalid frame.

    A byte of 00 separates frames; empty frames are ignored. Bytes may be separated by spaces and
    have the prefix 0x.
    """
    try:
        data = _bytes_of(text)
    except TextFormatError as error:
        yield error
        return
    position = 0
    for frame in data.split(DELIMITER):
        if frame:
            try:
                yield parse_message(frame, catalog, device)
            except RemoteProtocolError as error:
                yield TextFormatError(
                    f"byte {position}: {error.message}", **{**error.context, "byte": position}
                )
        position += len(frame) + 1


def _bytes_of(text: str) -> bytes:
    data = bytearray()
    for word in text.split():
        digits = word[2:] if word[:2] in {"0x", "0X"} else word
        for place in range(0, len(digits), 2):
            pair = digits[place : place + 2]
            if not re.fullmatch("[0-9A-Fa-f]{2}", pair):
                what = "half a byte" if re.fullmatch("[0-9A-Fa-f]", pair) else "not hexadecimal"
                raise TextFormatError(
                    f"byte {len(data)}: {pair!r} is {what}; a byte has two digits of 0-9 and a-f",
                    byte=len(data),
                )
            data += bytes.fromhex(pair)
    if not data:
        raise TextFormatError(
            "byte 0: no bytes; a frame is written in hexadecimal, two digits per byte", byte=0
        )
    return bytes(data)


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise TextFormatError(f"{json.dumps(duplicate)} appears twice", path=[duplicate])
    return value


def _find_duplicate(text: str, name: str) -> int:
    """Return where a second member with a name begins in an object."""
    values = [0]
    while values:
        members = _members(text, values.pop())
        places = [place for key, place, _ in members if key == name]
        if len(places) > 1:
            return places[1]
        values += [value for _, _, value in members]
    return 0


def _character(text: str, path: Sequence[str | int]) -> int:
    """Return where the member at a path begins in a JSON text."""
    found, value = _skip(text, 0), 0
    for key in path:
        for name, place, start in _members(text, value):
            if name == key:
                found, value = place, start
    return found


def _members(text: str, start: int) -> list[tuple[str | int, int, int]]:
    """Return the name or number, the start, and the start of the value of each member."""
    position = _skip(text, start)
    if text[position] not in "{[":
        return []
    close = {"{": "}", "[": "]"}[text[position]]
    members: list[tuple[str | int, int, int]] = []
    position = _skip(text, position + 1)
    while text[position] != close:
        name: str | int = len(members)
        value = place = position
        if close == "}":
            name, end = _DECODER.raw_decode(text, place)
            value = _skip(text, _skip(text, end) + 1)
        members.append((name, place, value))
        position = _skip(text, _DECODER.raw_decode(text, value)[1])
        if text[position] == ",":
            position = _skip(text, position + 1)
    return members


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _at(character: int, message: str) -> TextFormatError:
    return TextFormatError(f"character {character}: {message}", character=character)
