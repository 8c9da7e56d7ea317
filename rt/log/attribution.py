"""Whose an event is that another process made.

Invariant: the process that receives an event says whose it is, by the channel on which the event
came; what the event says about that itself is replaced. No other process can log as the root, and
none decides what belongs to the log itself.
"""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from rt.protocol.logevent import CLOCK_MOVED, LEVELS, SEQUENCE, is_stamp

EXTERNAL: Final = "external"
"""The `app` of an event that a process handed in which named itself as a part of the robot, or did not name itself."""

PRINT: Final = "print"
"""The `source` of what the team code prints."""

OLDEST: Final = 600.0
NEWEST: Final = 1.0
"""By how many seconds the time stamp of a child's event may be behind or ahead of the clock."""

_OWN: Final = ("instance", "child", "pid", "stream", "via", SEQUENCE, CLOCK_MOVED)
"""Fields that only the receiver sets."""
_PARTS: Final = frozenset(
    {
        "root",
        "log",
        "broker",
        "device",
        "executor",
        "emulator",
        "brake",
        "lint",
        "call",
        "supervisor",
        "rt",
        "",
    }
)


def from_child(
    event: Mapping[str, Any], child: str, pid: int | None = None, app: str = ""
) -> dict[str, Any]:
    """An event that came on the log pipe of a child.

    Args:
        event: What the child wrote.
        child: The child's name.
        pid: Its process, if known.
        app: The part of the robot that it is; its name by default.
    """
    own = _without_claims(event)
    if not _is_recent(own.get("timestamp"), OLDEST):
        own.pop("timestamp", None)
    own["app"] = app or child
    own["child"] = child
    if pid is not None:
        own["pid"] = pid
    return own


def from_stream(
    line: str, child: str, stream: str, pid: int | None = None, app: str = ""
) -> dict[str, Any]:
    """A line of text that a child wrote to stdout or stderr.

    Args:
        line: The line, whatever it looks like.
        child: The child's name.
        stream: ``stdout`` or ``stderr``.
        pid: Its process, if known.
        app: The part of the robot that it is; its name by default.
    """
    event = {"event": line, "level": "info", "app": app or child, "child": child, "stream": stream}
    return event if pid is None else {**event, "pid": pid}


def from_hub(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event that a process handed in at the log hub."""
    own = _without_claims(
        {key: value for key, value in event.items() if key != "source" or value != PRINT}
    )
    if not _is_recent(own.get("timestamp")):
        own.pop("timestamp", None)
    app = own.get("app")
    if not isinstance(app, str) or app.strip().lower() in _PARTS:
        own["app"] = EXTERNAL
    own["via"] = "hub"
    return own


def is_team_output(event: Mapping[str, Any]) -> bool:
    """Whether an event is what team code, or a program that it started, printed."""
    return event.get("source") == PRINT or ("stream" in event and is_from_team_process(event))


def is_from_team_process(event: Mapping[str, Any]) -> bool:
    """Whether an event came from a process that runs team code."""
    return event.get("app") == "executor" and "child" in event


def _without_claims(event: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in event.items() if key not in _OWN}
    level = own.get("level")
    if not isinstance(level, str) or level not in LEVELS or own.get("source") == PRINT:
        own["level"] = "info"
    return own


def _is_recent(stamp: object, oldest: float = float("inf")) -> bool:
    if not isinstance(stamp, str) or not is_stamp(stamp):
        return False
    try:
        age = time.time() - datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return False
    return -NEWEST <= age <= oldest
