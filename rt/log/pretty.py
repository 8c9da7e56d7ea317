"""An event as a person reads it on a terminal.

The rule of this module: whatever an event holds, and whoever made it, it is shown, and nothing in
it moves the cursor, changes
what the terminal does, or looks like another event: a line of text that continues an event is
indented.
"""

import os
from collections.abc import Callable, MutableMapping
from datetime import datetime
from typing import Any, TextIO

from rt.log.lean import structlog
from rt.protocol import exception

_HIDDEN = ("app", "pid", "instance", "source", "clock", "process")
_BIDIRECTIONAL = (
    0x61C,
    0x200E,
    0x200F,
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
"""Line separators, and what changes the direction in which a terminal shows text."""
_BELOW = {
    **dict.fromkeys([*range(32), *range(127, 160), *_BIDIRECTIONAL], "\N{REPLACEMENT CHARACTER}"),
    ord("\n"): "\n",
    ord("\t"): "\t",
}
_CONTROL = {**_BELOW, ord("\n"): "\n    "}


def wants_colors(stream: TextIO) -> bool:
    """Whether colours are shown on a stream: on a terminal that has them, unless somebody does not want any (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def pretty(*, colors: bool) -> Callable[[MutableMapping[str, Any]], str]:
    """A function that makes one or more lines for a person of an event, which it uses up."""
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
        # What structlog itself puts under a message; another program's log may have anything there.
        told = event.get("exception", event.get("exc_info"))
        below = {
            "stack": event.get("stack"),
            "exception": None if told is None else exception.text(told),
        }
        fields |= {
            key: None if text is None else str(text).translate(_BELOW)
            for key, text in below.items()
        }
        fields["exc_info"] = None
        return f"{clock} {console(None, '', fields)}".lstrip()

    return render


def _working_directory() -> str:
    """The beginning of paths that are said relative to it, or nothing."""
    try:
        here = os.getcwd()  # noqa: PTH109 - a prefix of text
    except OSError:  # somebody has removed it
        return ""
    return "" if here == "/" else f"{here}/"


def _since_start(event: MutableMapping[str, Any]) -> str:
    """When the team's code printed something: the mode, and the time since that began."""
    mode, clock = event.get("mode"), event.get("clock")
    return f"{mode} {clock:.2f} s | " if mode and isinstance(clock, float) else ""


def _local_time(stamp: object) -> str:
    text = str(stamp)
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except (ValueError, OverflowError):  # whatever another program wrote there
        return text[11:23].translate(_CONTROL)
