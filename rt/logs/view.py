"""Log events for a person or a program: which ones are wanted, and how they look."""

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
    """The moment that a person means.

    Args:
        text: How long ago, as 30s, 10m, 2h or 1d; or a local time, as 14:05; or a date with or
            without a time, ISO 8601.
        now: The present, with a time zone.

    Raises:
        ValueError: It is none of these.

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
            f"{text!r} is not a time: write 30s, 10m, 2h, 1d, 14:05 or 2026-01-31T14:05"
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
    """When an event was logged, or None if it does not say so."""
    try:
        moment = datetime.fromisoformat(event["timestamp"])
    except (KeyError, TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def event_of(line: bytes | str) -> dict[str, Any]:
    """The event of a line; a line that is none is an event with the line as its sentence, as the root has it."""
    event = decode_line(line)
    if event is not None:
        return event
    text = line if isinstance(line, str) else line.decode(errors="replace")
    return {"event": text.rstrip("\r"), "level": "info"}


def clock_moved(event: dict[str, Any]) -> float:
    """By how much the clock was set when an event was logged (s): 0 of nearly all."""
    moved = event.get(CLOCK_MOVED, 0.0)
    return float(moved) if isinstance(moved, float | int) and abs(moved) < _AGES else 0.0


class LogView:
    """Chooses and shows events.

    Args:
        level: The least severity that is shown.
        apps: The processes of which events are shown; of all if empty.
        since: The moment from which on events are shown; from the first one if None.
        as_json: Whether an event is shown as the JSON object that it is.
        colors: Whether a terminal shows colours.

    Attributes:
        levels: Those that are shown.
        dated: Whether it matters when an event was logged.
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
        self._behind: float | None = None
        self._as_json = as_json
        self._pretty = log.pretty(colors=colors)
        self._day = datetime.now(UTC).astimezone().date()

    def wants(self, event: dict[str, Any]) -> bool:
        """Whether an event is shown; to be asked once of each."""
        if self._behind is not None and CLOCK_MOVED in event:
            self._behind -= clock_moved(event)
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
        return moment is None or moment.timestamp() + (self._behind or 0.0) >= self._since

    @contextlib.contextmanager
    def clock_offset(self, moved: float) -> Iterator[None]:
        """Take what comes within the block for lines of a log during which the clock was set, altogether by so much (s)."""
        self._behind = moved
        try:
            yield
        finally:
            self._behind = None

    def show(self, event: dict[str, Any]) -> str:
        """An event as one or more lines; uses the event up."""
        if self._as_json:
            return encode_line(event).decode()
        return self._heading(event) + self._pretty(event)

    def _heading(self, event: dict[str, Any]) -> str:
        """The day, where it is another than that of the last event: lines tell the time only."""
        moment = moment_of(event)
        try:
            day = self._day if moment is None else moment.astimezone().date()
        except OverflowError:  # the end of all days
            return ""
        if day == self._day:
            return ""
        self._day = day
        return f"--- {day.isoformat()} ---\n"
