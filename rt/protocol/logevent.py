"""Log events as they travel: JSON lines between processes and in files, and on the network two frames, level and notification.

An event is a map that holds ``event`` (a sentence), ``level``, ``timestamp`` (ISO 8601, UTC),
``app`` and context. The rule of this module: whatever a program puts into an event, it can be
encoded, and its length is bounded; whatever a stranger sends is an event or is refused whole.
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
"""The severities, least first, with the numbers that the standard library gives them."""

MAX_EVENT = 16384
"""The longest event that is published, in bytes; of a longer one the sentence is cut and the context left out."""

MAX_LINE = 32768
"""The longest line, in bytes without its end; an event that is longer is shortened as one that is published."""

CUT_MARKER = " [line cut here]"
"""What stands at the end of a line of which the rest was left out."""

SEQUENCE = "seq"
"""The field that counts the published events of each level, so that a subscriber can tell how many it has missed."""

CLOCK_MOVED = "clock_moved"
"""The field of the event that tells by how much the clock was set (s); what was logged before it has time stamps of another clock."""

_KEPT = 4096  # bytes of the sentence of an event that is too long
_KEPT_VALUE = 100  # characters of a text of its context: a longer one is left out
_KEPT_FIELDS = ("timestamp", "app", "pid", "instance", "child", "source", "mode", "clock", SEQUENCE)
_COMMANDING = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
"""Characters that command some terminals and that JSON does not escape: DEL, C1 controls, and changes of the text's direction."""
_INT_END = 1 << 63
_SHOWN = 1000
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)\Z")


def _shown(value: object) -> str:
    """An object as text; never fails."""
    try:
        return str(value)[:_SHOWN]
    except Exception:  # noqa: BLE001 - an object of the team's own whose text cannot be made
        return reprlib.repr(type(value))


_json = msgspec.json.Encoder(enc_hook=_shown)
_msgpack = msgspec.msgpack.Encoder(enc_hook=_shown)
_line = msgspec.json.Decoder(dict[str, Any])


def encode_line(event: Mapping[str, Any]) -> bytes:
    """An event as one line of JSON without its end, at most `MAX_LINE` bytes; never fails.

    What JSON has no words for, as NaN, becomes text.
    """
    line = _encode_line(event)
    return line if len(line) <= MAX_LINE else _encode_line(_shortened(event, len(line)))


def _encode_line(event: Mapping[str, Any]) -> bytes:
    line = _plain_line(event)
    return line if _COMMANDING.search(line) is None else _COMMANDING.sub(_escaped, line)


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match[0].decode())


def _plain_line(event: Mapping[str, Any]) -> bytes:
    try:
        line = _json.encode(event)
        # A number that is none is written as null, which is rare otherwise.
        if b"null" not in line:
            return line
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass
    return json.dumps(plain(event), ensure_ascii=False, separators=(",", ":")).encode(
        errors="replace"
    )


def _shortened(event: Mapping[str, Any], size: int) -> dict[str, Any]:
    """What is kept of an event that is too long: the beginning of its sentence, and whose it is."""
    sentence = str(event["event"])[:_KEPT].encode(errors="replace")[:_KEPT].decode(errors="ignore")
    kept = {key: value for key in _KEPT_FIELDS if _is_short(value := event.get(key))}
    return {"event": sentence, "level": event["level"], **kept, "cut": size}


def _is_short(value: object) -> bool:
    return isinstance(value, float | int) or (isinstance(value, str) and len(value) <= _KEPT_VALUE)


def decode_line(line: str | bytes) -> dict[str, Any] | None:
    """The event of a line of JSON, or None if the line is something else."""
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
    """The two frames of an event: its level, and the notification `[2, level, [event]]`, at most `MAX_EVENT` bytes; never fails."""
    level = event["level"]
    try:
        payload = _msgpack.encode((2, level, (event,)))
    except (TypeError, ValueError, OverflowError, RecursionError):
        payload = _msgpack.encode((2, level, (plain(event),)))
    if len(payload) > MAX_EVENT:
        payload = _msgpack.encode((2, level, (plain(_shortened(event, len(payload))),)))
    return level.encode(), payload


def decode(frames: Sequence[bytes]) -> dict[str, Any]:
    """The event that frames carry: the topic and the notification.

    Raises:
        RemoteProtocolError: They are no event, or one that is too long.
    """
    if len(frames) != 2:
        raise RemoteProtocolError(f"no log event: it has {len(frames)} frames", reason="frames")
    topic, payload = frames
    if len(payload) > MAX_EVENT:
        raise RemoteProtocolError(
            f"a log event of {len(payload)} bytes came, {MAX_EVENT} are allowed", reason="size"
        )
    message = rpc.decode(payload)
    if not isinstance(message, rpc.Notification) or len(message.params) != 1:
        raise RemoteProtocolError(
            "no log event: a notification with one argument is one", reason="envelope"
        )
    if message.method not in LEVELS or topic != message.method.encode():
        raise RemoteProtocolError(
            "no log event: topic and method are one of the levels", reason="level"
        )
    (event,) = message.params
    if not isinstance(event, dict) or not all(isinstance(key, str) for key in event):
        raise RemoteProtocolError("no log event: it is no map of names", reason="event")
    if (
        not isinstance(event.get("event"), str)
        or event.get("level", message.method) != message.method
    ):
        raise RemoteProtocolError(
            "no log event: it has no sentence, or another level", reason="event"
        )
    if not is_timestamp(event.get("timestamp", "1970-01-01T00:00:00Z")):
        raise RemoteProtocolError(
            "no log event: its timestamp is not ISO 8601 in UTC", reason="timestamp"
        )
    event["level"] = message.method
    return event


def is_timestamp(value: object) -> bool:
    """Whether a value is a time stamp of an event: ISO 8601 in UTC."""
    return isinstance(value, str) and _STAMP.match(value) is not None


def plain(value: Any, depth: int = 6) -> Any:  # noqa: PLR0911 - one for each kind of value
    """What every encoding can carry of a value: NaN, infinities, huge numbers and objects become text, depth is bounded."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_INT_END <= value < _INT_END else _digits(int(value))
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth and isinstance(value, Mapping):
        return {plain(_shown(key)): plain(each, depth - 1) for key, each in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [plain(each, depth - 1) for each in value]
    return plain(_shown(value))


def _digits(value: int) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # more digits than Python converts (sys.set_int_max_str_digits)
        return f"a number of {value.bit_length()} bits"


class GapCounter:
    """Counts what a subscriber has missed, by the numbers that each level's events carry.

    Attributes:
        missed: Events that were published and did not come.
    """

    def __init__(self) -> None:
        self.missed = 0
        self._last: dict[str, int] = {}

    def count(self, event: dict[str, Any]) -> int:
        """Take the number off an event that came; how many were missed right before it."""
        number = event.pop(SEQUENCE, None)
        if not isinstance(number, int):
            return 0
        last = self._last.get(event["level"])
        self._last[event["level"]] = number
        # A lower number is of a robot that was started again.
        gap = number - last - 1 if last is not None and number > last else 0
        self.missed += gap
        return gap

    def restart(self) -> None:
        """Forget the numbers: what comes next is from a robot that was started, or reached, anew."""
        self._last.clear()
