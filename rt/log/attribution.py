"""Attribution of events from other processes.

Invariant: the channel on which an event arrives determines its origin; what the event itself claims
is replaced. No other process can log as the root or set the fields of the log itself.
"""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from rt.protocol.logevent import CLOCK_MOVED, LEVELS, SEQUENCE, is_timestamp

EXTERNAL: Final = "external"
"""The `app` of a submitted event that names none, or a part of the robot."""

PRINT: Final = "print"
"""The `source` of events that team code prints."""

OLDEST: Final = 600.0
NEWEST: Final = 1.0
"""Maximum time (s) that the stamp of a child's event may be behind and ahead of the clock."""

_OWN: Final = ("instance", "child", "pid", "stream", "via", SEQUENCE, CLOCK_MOVED)
"""Fields that only the receiver of an event sets."""
_PROCESSES: Final = {"root", "log", "broker", "device", "executor", "brake"}
_PARTS: Final = {*_PROCESSES, "emulator", "lint", "call", "supervisor", "rt", ""}


def from_child(
    event: Mapping[str, Any], child: str, pid: int | None = None, app: str = ""
) -> dict[str, Any]:
    """Return an event from the log pipe of a child with its origin.

    Args:
        event: The event as the child wrote it.
        child: Name of the child.
        pid: Process id, if known.
        app: Part of the robot; by default the name of the child.
    """
    own = _without_claims(event)
    if not _is_recent(own.get("timestamp"), OLDEST):
        own.pop("timestamp", None)
    return {**own, **_origin(child, pid, app)}


def from_stream(
    line: str, child: str, stream: str, pid: int | None = None, app: str = ""
) -> dict[str, Any]:
    """Return an event for a line that a child wrote to a stream, ``stdout`` or ``stderr``.

    The other arguments are those of `from_child`.
    """
    return {"event": line, "level": "info", **_origin(child, pid, app), "stream": stream}


def from_hub(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event that a process submitted to the log hub with its origin."""
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
    """Whether an event is output of team code or of a program that it started."""
    return event.get("source") == PRINT or ("stream" in event and is_from_team_process(event))


def is_from_team_process(event: Mapping[str, Any]) -> bool:
    """Whether an event is from a process that runs team code."""
    return event.get("app") == "executor" and "child" in event


def _origin(child: str, pid: int | None, app: str) -> dict[str, Any]:
    return {"app": app or child, "child": child, **({} if pid is None else {"pid": pid})}


def _without_claims(event: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in event.items() if key not in _OWN}
    level = own.get("level")
    if not isinstance(level, str) or level not in LEVELS or own.get("source") == PRINT:
        own["level"] = "info"
    return own


def _is_recent(stamp: object, oldest: float = float("inf")) -> bool:
    if not isinstance(stamp, str) or not is_timestamp(stamp):
        return False
    try:
        age = time.time() - datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return False
    return -NEWEST <= age <= oldest
