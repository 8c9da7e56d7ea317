"""Rendering of events as text for a terminal.

Invariant: every event is shown, and nothing in it moves the cursor, changes the state of the
terminal or looks like another event. Continuation lines are indented.
"""

import os
from collections.abc import Callable, MutableMapping
from datetime import datetime
from typing import Any, TextIO

from rt.log.structlog_import import structlog
from rt.protocol import exception

_HIDDEN = ("app", "pid", "instance", "source", "clock", "process")
_BIDIRECTIONAL = (0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
"""Line separators, and characters that change the direction of text."""
_BELOW = {
    **dict.fromkeys([*range(32), *range(127, 160), *_BIDIRECTIONAL], "\N{REPLACEMENT CHARACTER}"),
    ord("\n"): "\n",
    ord("\t"): "\t",
}
_CONTROL = {**_BELOW, ord("\n"): "\n    "}


def wants_colors(stream: TextIO) -> bool:
    """Whether to use colours on a stream: a terminal with colours, and no NO_COLOR.

    Source: https://no-color.org.
    """
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def pretty(*, colors: bool) -> Callable[[MutableMapping[str, Any]], str]:
    """Return a function that renders an event as one or more lines; it consumes the event."""
    console = structlog.dev.ConsoleRenderer(
        colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    here = _working_directory()

    def show(value: Any) -> Any:
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        if not isinstance(value, str):
            return value
        return (value.replace(here, "") if here else value).translate(_CONTROL)

    def render(event: MutableMapping[str, Any]) -> str:
        clock = _local_time(event.pop("timestamp", ""))
        if event.get("source") == "print":
            return f"{clock} print | {_since_start(event)}{event.get('event', '')}".translate(
                _CONTROL
            )
        if event.get("child") in (event.get("app"), "root"):
            event.pop("child", None)
        for key in _HIDDEN:
            event.pop(key, None)
        if event.get("reason") == str(event.get("event", "")).rpartition(" ")[2]:
            del event["reason"]
        fields = {str(key).translate(_CONTROL): show(value) for key, value in event.items()}
        # structlog shows these below the event; other programs may have set them to any value.
        raised = event.get("exception", event.get("exc_info"))
        below = {
            "stack": event.get("stack"),
            "exception": None if raised is None else exception.text(raised),
        }
        fields |= {
            key: None if text is None else str(text).translate(_BELOW)
            for key, text in below.items()
        }
        fields["exc_info"] = None
        return f"{clock} {console(None, '', fields)}".lstrip()

    return render


def _working_directory() -> str:
    """Return the prefix that is removed from paths, or ""."""
    try:
        here = os.getcwd()  # noqa: PTH109 - a prefix of text
    except OSError:  # the directory was removed
        return ""
    return "" if here == "/" else f"{here}/"


def _since_start(event: MutableMapping[str, Any]) -> str:
    """Return the mode in which team code printed, and the time since its start, or ""."""
    mode, clock = event.get("mode"), event.get("clock")
    return f"{mode} {clock:.2f} s | " if mode and isinstance(clock, float) else ""


def _local_time(stamp: object) -> str:
    text = str(stamp)
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except (ValueError, OverflowError):  # other programs may have written any text
        return text[11:23].translate(_CONTROL)
