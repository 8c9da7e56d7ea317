"""Wire formats of log events: JSON lines between processes and in files, two frames on the network.

An event is a map with ``event`` (a sentence), ``level``, ``timestamp`` (ISO 8601, UTC), ``app`` and
context. On the network the frames are the level and a notification.

Invariant: every event can be encoded, whatever a program puts into it, and its length is bounded.
    Received bytes are a valid event or are refused.
"""

import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rt.errors import RemoteProtocolError
from rt.protocol import rpc

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""The levels in ascending severity, with the numbers of the standard library."""

MAX_EVENT = 16384
"""The longest published event (bytes). A longer one is truncated and loses its context."""

MAX_LINE = 32768
"""The longest line (bytes, without line end). A longer event is shortened like a published one."""

CUT_MARKER = " [line cut here]"
"""The end of a truncated line."""

SEQUENCE = "seq"
"""The field that numbers the published events of each level, so that subscribers detect gaps."""

CLOCK_MOVED = "clock_moved"
"""The field with the step of the system clock (s). Earlier timestamps are of the old clock."""

_SENTENCE_MAX = 4096  # bytes of the sentence of a shortened event
_CONTEXT_MAX = 100  # characters of a text in its context; longer texts are omitted
_SHORT_FIELDS = (
    "timestamp",
    "app",
    "pid",
    "instance",
    "child",
    "source",
    "mode",
    "clock",
    SEQUENCE,
)
_CONTROL = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
"""Control characters that JSON leaves: DEL, C1 controls, line separators, bidi controls."""
_INT_END = 1 << 63
_TEXT_MAX = 1000
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)\Z")


def _as_text(value: object) -> str:
    """Return an object as text; never raises."""
    try:
        return str(value)[:_TEXT_MAX]
    except Exception:  # noqa: BLE001 - `__str__` of team code
        return reprlib.repr(type(value))


_json = msgspec.json.Encoder(enc_hook=_as_text)
_msgpack = msgspec.msgpack.Encoder(enc_hook=_as_text)
_line = msgspec.json.Decoder(dict[str, Any])


def encode_line(event: Mapping[str, Any]) -> bytes:
    """Return an event as one line of JSON without line end, at most `MAX_LINE` bytes; never raises.

    Values without a JSON form, such as NaN, become text.
    """
    line = _encode_line(event)
    return line if len(line) <= MAX_LINE else _encode_line(_shortened(event, len(line)))


def _encode_line(event: Mapping[str, Any]) -> bytes:
    line = _plain_line(event)
    return line if _CONTROL.search(line) is None else _CONTROL.sub(_escaped, line)


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match[0].decode())


def _plain_line(event: Mapping[str, Any]) -> bytes:
    try:
        line = _json.encode(event)
        # msgspec encodes NaN as null, which is rare otherwise.
        if b"null" not in line:
            return line
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass
    return json.dumps(plain(event), ensure_ascii=False, separators=(",", ":")).encode(
        errors="replace"
    )


def _shortened(event: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return a shortened event: the beginning of its sentence, and where it came from."""
    sentence = (
        str(event["event"])[:_SENTENCE_MAX]
        .encode(errors="replace")[:_SENTENCE_MAX]
        .decode(errors="ignore")
    )
    context = {key: value for key in _SHORT_FIELDS if _is_short(value := event.get(key))}
    return {"event": sentence, "level": event["level"], **context, "cut": size}


def _is_short(value: object) -> bool:
    return isinstance(value, float | int) or (isinstance(value, str) and len(value) <= _CONTEXT_MAX)


def decode_line(line: str | bytes) -> dict[str, Any] | None:
    """Return the event of a line of JSON, or None if the line is not an event."""
    try:
        event = _line.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return (
        event
        if isinstance(event.get("event"), str) and isinstance(event.get("level"), str)
        else None
    )


def encode(event: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the two frames of an event; never raises.

    They are its level and the notification `[2, level, [event]]`, at most `MAX_EVENT` bytes.
    """
    level = event["level"]
    try:
        payload = _msgpack.encode((2, level, (event,)))
    except (TypeError, ValueError, OverflowError, RecursionError):
        payload = _msgpack.encode((2, level, (plain(event),)))
    if len(payload) > MAX_EVENT:
        payload = _msgpack.encode((2, level, (plain(_shortened(event, len(payload))),)))
    return level.encode(), payload


def decode(frames: Sequence[bytes]) -> dict[str, Any]:
    """Return the event in two frames: the topic and the notification.

    Raises:
        RemoteProtocolError: The frames are not an event, or it is too long.
    """
    if len(frames) != 2:
        raise _refusal(f"expected 2 frames, got {len(frames)}", "frames")
    topic, payload = frames
    if len(payload) > MAX_EVENT:
        raise RemoteProtocolError(
            f"log event too long: {len(payload)} bytes, at most {MAX_EVENT} are allowed",
            reason="size",
        )
    message = rpc.decode(payload)
    if not isinstance(message, rpc.Notification) or len(message.params) != 1:
        raise _refusal("expected a notification with one argument", "envelope")
    if message.method not in LEVELS or topic != message.method.encode():
        raise _refusal("topic and method must be the same level", "level")
    (event,) = message.params
    if not isinstance(event, dict) or not all(isinstance(key, str) for key in event):
        raise _refusal("expected a map with text keys", "event")
    if (
        not isinstance(event.get("event"), str)
        or event.get("level", message.method) != message.method
    ):
        raise _refusal("no sentence, or another level", "event")
    if not is_timestamp(event.get("timestamp", "1970-01-01T00:00:00Z")):
        raise _refusal("its timestamp is not ISO 8601 in UTC", "timestamp")
    event["level"] = message.method
    return event


def _refusal(problem: str, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"not a log event: {problem}", reason=reason)


def is_timestamp(value: object) -> bool:
    """Return whether a value is a timestamp of an event: ISO 8601 in UTC."""
    return isinstance(value, str) and _STAMP.match(value) is not None


def plain(value: Any, depth: int = 6) -> Any:  # noqa: PLR0911 - one for each type of value
    """Return a value that every encoding supports.

    NaN, infinities, huge numbers, objects and values nested deeper than ``depth`` become text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_INT_END <= value < _INT_END else _digits(int(value))
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth and isinstance(value, Mapping):
        return {plain(_as_text(key)): plain(each, depth - 1) for key, each in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [plain(each, depth - 1) for each in value]
    return plain(_as_text(value))


def _digits(value: int) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # more digits than Python converts (sys.set_int_max_str_digits)
        return f"a number of {value.bit_length()} bits"


class GapCounter:
    """Counts the events that a subscriber has missed, by the number in each event.

    Attributes:
        missed: The number of events that were published and not received.
    """

    def __init__(self) -> None:
        self.missed = 0
        self._last: dict[str, int] = {}

    def count(self, event: dict[str, Any]) -> int:
        """Remove the number from a received event, and return how many were missed before it."""
        number = event.pop(SEQUENCE, None)
        if not isinstance(number, int):
            return 0
        last = self._last.get(event["level"])
        self._last[event["level"]] = number
        # A lower number is from a restarted robot.
        gap = number - last - 1 if last is not None and number > last else 0
        self.missed += gap
        return gap

    def restart(self) -> None:
        """Expect any numbers next: the robot was restarted, or the connection is new."""
        self._last.clear()
