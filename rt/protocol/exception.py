"""Exceptions as data: what a log event carries of one, and how a person reads it.

The data is plain and bounded: type, message, the innermost frames, causes and the parts of a group.
The same data is text again in `text`, so that a terminal, a file and another machine tell the same.
"""

import reprlib
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

MAX_FRAMES = 20
"""The most frames that are kept, those nearest to the error."""
MAX_MESSAGE = 2000
"""The most characters of an error's message."""
MAX_DEPTH = 4
"""How far causes and groups are followed."""
MAX_PARTS = 8
"""The most parts of a group."""


def data(error: BaseException, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """What there is to tell of an exception, in plain values; never fails."""
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ in {"builtins", "__main__"}
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    told: dict[str, Any] = {"type": name, "message": message(error), "frames": _frames(error)}
    if depth:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            told["cause"] = data(cause, depth - 1)
        if isinstance(error, BaseExceptionGroup):
            told["errors"] = [data(each, depth - 1) for each in error.exceptions[:MAX_PARTS]]
    return told


def text(told: Any, indent: str = "") -> str:
    """An exception's data as a person reads it, the cause first; what is no such data is shown as it is."""
    if not isinstance(told, Mapping):
        return str(told)
    return "\n".join(_lines(told, indent))


def _lines(told: Mapping[str, Any], indent: str) -> Iterator[str]:
    if isinstance(cause := told.get("cause"), Mapping):
        yield from _lines(cause, indent)
        yield f"{indent}which led to:"
    frames = told.get("frames")
    for frame in frames if isinstance(frames, list) else []:
        if isinstance(frame, Mapping):
            yield f"{indent}  {frame.get('file')}:{frame.get('line')} in {frame.get('func')}"
            if frame.get("code"):
                yield f"{indent}    {frame['code']}"
    yield f"{indent}{told.get('type')}: {told.get('message')}"
    parts = told.get("errors")
    for number, part in enumerate(parts if isinstance(parts, list) else [], 1):
        yield f"{indent}part {number}:"
        yield text(part, f"{indent}    ")


def _frames(error: BaseException) -> list[dict[str, Any]]:
    try:
        frames = traceback.extract_tb(error.__traceback__, limit=-MAX_FRAMES)
    except Exception:  # noqa: BLE001 - a source that cannot be looked at is no reason to lose the event
        return []
    return [
        {
            "file": frame.filename,
            "line": frame.lineno,
            "func": frame.name,
            "code": (frame.line or "")[:200],
        }
        for frame in frames
    ]


def message(error: BaseException) -> str:
    """The text of an error, bounded; its type where the text cannot be made. Never fails."""
    try:
        return str(error)[:MAX_MESSAGE]
    except Exception:  # noqa: BLE001 - an error of the team's own whose text cannot be made
        return reprlib.repr(type(error))
