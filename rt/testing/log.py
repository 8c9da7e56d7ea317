"""The log of an emulated robot: its events, and waiting for one."""

import json
from typing import Any

import trio


class RobotLog:
    """The log of a robot that a test has started.

    Args:
        timeout: The time limit of `logged` (s).

    Attributes:
        log: The events, oldest first, each with at least ``event`` and ``level``. What team code
            prints is an event with the printed text.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.log: list[dict[str, Any]] = []
        self._changed = trio.Event()

    def add_line(self, line: str | bytes) -> dict[str, Any] | None:
        """Add the event of a line of output, and return it; None if it is not an event."""
        try:
            event = json.loads(line)
            event["event"] = str(event["event"])
        except (ValueError, TypeError, KeyError):
            return None
        self.log.append(event)
        self._notify()
        found: dict[str, Any] = event
        return found

    def count_logged(self, event: str, **context: Any) -> int:
        """Return how many events of the log match; see `logged`."""
        return len(self._matching(event, context))

    async def logged(self, event: str, count: int = 1, **context: Any) -> dict[str, Any]:
        """Wait until the log has a matching event, and return it.

        Args:
            event: A part of the event's text.
            count: Which one of the matching events to wait for, from 1.
            context: Values that the event must carry, such as ``level="warning"``.

        Raises:
            AssertionError: The log has no such event within `timeout`.
        """
        with trio.move_on_after(self.timeout):
            while len(found := self._matching(event, context)) < count:
                await self._changed.wait()
            return found[count - 1]
        about = f" with {context}" if context else ""
        raise AssertionError(f"the robot did not log {event!r}{about} within {self.timeout:g} s")

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _matching(self, event: str, context: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            entry
            for entry in self.log
            if event in entry["event"] and context.items() <= entry.items()
        ]
