"""Exceptions as plain, bounded data for log events, and that data as text.

The data contains the type, the message, the innermost frames, causes and the parts of a group.
Terminals, files and other machines render it with `text`.
"""

import reprlib
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

MAX_FRAMES = 20
"""The maximum number of frames; the innermost are kept."""
MAX_MESSAGE = 2000
"""The maximum length of a message in characters."""
MAX_DEPTH = 4
"""The maximum depth of causes and groups."""
MAX_PARTS = 8
"""The maximum number of parts of a group."""


def data(error: BaseException, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Return an exception as plain values; never raises."""
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ in {"builtins", "__main__"}
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    result: dict[str, Any] = {"type": name, "message": message(error), "frames": _frames(error)}
    if depth:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            result["cause"] = data(cause, depth - 1)
        if isinstance(error, BaseExceptionGroup):
            result["errors"] = [data(each, depth - 1) for each in error.exceptions[:MAX_PARTS]]
    return result


def text(exception: Any, indent: str = "") -> str:
    """Return the data of an exception as readable text, causes first; anything else as a string."""
    if not isinstance(exception, Mapping):
        return str(exception)
    return "\n".join(_lines(exception, indent))


def _lines(exception: Mapping[str, Any], indent: str) -> Iterator[str]:
    if isinstance(cause := exception.get("cause"), Mapping):
        yield from _lines(cause, indent)
        yield f"{indent}which led to:"
    frames = exception.get("frames")
    for frame in frames if isinstance(frames, list) else []:
        if isinstance(frame, Mapping):
            yield f"{indent}  {frame.get('file')}:{frame.get('line')} in {frame.get('func')}"
            if frame.get("code"):
                yield f"{indent}    {frame['code']}"
    yield f"{indent}{exception.get('type')}: {exception.get('message')}"
    parts = exception.get("errors")
    for number, part in enumerate(parts if isinstance(parts, list) else [], 1):
        yield f"{indent}part {number}:"
        yield text(part, f"{indent}    ")


def _frames(error: BaseException) -> list[dict[str, Any]]:
    try:
        frames = traceback.extract_tb(error.__traceback__, limit=-MAX_FRAMES)
    except Exception:  # noqa: BLE001 - unreadable source code must not cost the event
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
    """Return the bounded message of an error, or its type if `str` fails; never raises."""
    try:
        return str(error)[:MAX_MESSAGE]
    except Exception:  # noqa: BLE001 - `__str__` of team code
        return reprlib.repr(type(error))
