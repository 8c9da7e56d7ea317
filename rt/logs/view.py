"""Selection and rendering of log events for people and programs."""

import contextlib
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from rt import log
from rt.protocol.logevent import CLOCK_MOVED, LEVELS, decode_line, encode_line

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smhd])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGES = 1e10  # seconds
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?")


def parse_since(text: str, now: datetime) -> datetime:
    """Parse a point in time.

    Args:
        text: An age such as 30s, 10m, 2h or 1d, a local time such as 14:05, or a date with or
            without a time (ISO 8601).
        now: Current time, with a time zone.

    Raises:
        ValueError: The text has another form.

    Examples:
        >>> noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
        >>> parse_since("10m", noon).isoformat()
        '2026-01-02T11:50:00+00:00'
        >>> parse_since("2026-01-01T08:00:00Z", noon).isoformat()
        '2026-01-01T08:00:00+00:00'
    """
    try:
        return _since(text.strip(), now)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time; write 30s, 10m, 2h, 1d, 14:05 or 2026-01-31T14:05"
        ) from None


def _since(text: str, now: datetime) -> datetime:
    if ago := _AGO.fullmatch(text):
        try:
            return now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    if _CLOCK.fullmatch(text):
        hour, minute, *second = map(int, text.split(":"))
        moment = now.astimezone().replace(
            hour=hour, minute=minute, second=(second or [0])[0], microsecond=0
        )
        return moment - timedelta(days=1) if moment > now else moment
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.astimezone()


def moment_of(event: dict[str, Any]) -> datetime | None:
    """Return the time of an event, or None if it has no valid time stamp."""
    try:
        moment = datetime.fromisoformat(event["timestamp"])
    except (KeyError, TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def event_of(line: bytes | str) -> dict[str, Any]:
    """Return the event of a line; any other text becomes an event with this text."""
    event = decode_line(line)
    if event is not None:
        return event
    text = line if isinstance(line, str) else line.decode(errors="replace")
    return {"event": text.rstrip("\r"), "level": "info"}


def clock_moved(event: dict[str, Any]) -> float:
    """Return by how much the clock was set at an event (s), usually 0."""
    moved = event.get(CLOCK_MOVED, 0.0)
    return float(moved) if isinstance(moved, float | int) and abs(moved) < _AGES else 0.0


class LogView:
    """Selects and renders events.

    Args:
        level: Lowest level that is shown.
        apps: Processes whose events are shown; all if empty.
        since: Time of the oldest event that is shown; None for no limit.
        as_json: Whether to render events as JSON objects.
        colors: Whether to use colours.

    Attributes:
        levels: Levels that are shown.
        dated: Whether the time of an event matters.
    """

    def __init__(
        self,
        *,
        level: str = "debug",
        apps: Collection[str] = (),
        since: datetime | None = None,
        as_json: bool = False,
        colors: bool = False,
    ) -> None:
        self.levels = [name for name, severity in LEVELS.items() if severity >= LEVELS[level]]
        self.dated = since is not None
        self._apps = tuple(apps)
        self._since = None if since is None else since.timestamp()
        self._clock_moved: float | None = None
        self._as_json = as_json
        self._pretty = log.pretty(colors=colors)
        self._day = datetime.now(UTC).astimezone().date()

    def wants(self, event: dict[str, Any]) -> bool:
        """Return whether an event is shown; call this once for each event."""
        if self._clock_moved is not None and CLOCK_MOVED in event:
            self._clock_moved -= clock_moved(event)
        if event["level"] not in self.levels and event["level"] in LEVELS:
            return False
        if (
            self._apps
            and event.get("app") not in self._apps
            and event.get("child") not in self._apps
        ):
            return False
        if self._since is None:
            return True
        moment = moment_of(event)
        return moment is None or moment.timestamp() + (self._clock_moved or 0.0) >= self._since

    @contextlib.contextmanager
    def clock_offset(self, moved: float) -> Iterator[None]:
        """Correct the times of the events in the block.

        Args:
            moved: By how much the clock was set in total (s) during the log that they are from.
        """
        self._clock_moved = moved
        try:
            yield
        finally:
            self._clock_moved = None

    def show(self, event: dict[str, Any]) -> str:
        """Return an event as one or more lines; consumes the event."""
        if self._as_json:
            return encode_line(event).decode()
        return self._heading(event) + self._pretty(event)

    def _heading(self, event: dict[str, Any]) -> str:
        """Return a line with the day if it has changed, because events show only the time."""
        moment = moment_of(event)
        try:
            day = self._day if moment is None else moment.astimezone().date()
        except OverflowError:  # out of the range of dates
            return ""
        if day == self._day:
            return ""
        self._day = day
        return f"--- {day.isoformat()} ---\n"
