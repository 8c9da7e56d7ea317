"""Control datagrams (gamepads to the robot) and update datagrams (device values from it).

Both are notifications of `rt.protocol.rpc`: `[2, "update_gamepads", [{"0": {"lx": .., "ly": ..,
"rx": .., "ry": .., "btn": ..}}]]`, with an optional `Stamp` as second argument, and `[2, "update",
[{"<uid>": {"<param>": value}}]]`. The robot answers a station whose gamepads it refuses with
`[2, "refused", [by, you]]`: the name of the station in control, and the refused station's own name
for `take_control`. Remote methods of the same names take the same structures: a handler annotates
its argument with `GamepadUpdate` or `DeviceUpdate` and converts it with `check_gamepads` or
`check_devices` to values with integer keys.

Invariant: a gamepad moves motors, so one invalid field refuses the whole update, with an error that
    names the field. No value is guessed or clamped, except that a stick may overshoot its range.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from rt.errors import LocalProtocolError, RemoteProtocolError
from rt.protocol import rpc
from rt.protocol.uid import UID_END
from rt.text import clip, quote

UPDATE_GAMEPADS = "update_gamepads"
UPDATE = "update"
REFUSED = "refused"

GAMEPADS = 4
"""Gamepads have the indices 0 to 3."""

BUTTONS = 17
"""Buttons of the gamepad of the built-in catalog; bit i of `btn` is its i-th bool parameter."""

SILENCE = 0.5
"""Time (s) without an accepted update after which a driver is silent and a gamepad reads neutral.

The broker marks the gamepad's buffer as invalid; each reader checks the age of the values itself.
"""

AXIS_MAX = 1.1
"""The largest value of an axis: some gamepads overshoot 1, which `clamped` corrects."""

Axis: TypeAlias = Annotated[float, msgspec.Meta(ge=-AXIS_MAX, le=AXIS_MAX)]


class GamepadState(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The state of one gamepad; all fields are required.

    Attributes:
        lx: Left stick, horizontal, -1 to 1, 0 at rest.
        ly: Left stick, vertical, -1 to 1, 0 at rest.
        rx: Right stick, horizontal.
        ry: Right stick, vertical.
        btn: Bit i is set while the i-th button is pressed.
    """

    lx: Axis
    ly: Axis
    rx: Axis
    ry: Axis
    btn: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]

    def clamped(self) -> "GamepadState":
        """Return the state with each stick moved into the unit circle, in the same direction."""
        lx, ly = _into_circle(self.lx, self.ly)
        rx, ry = _into_circle(self.rx, self.ry)
        return GamepadState(lx, ly, rx, ry, self.btn)


class Stamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The optional second argument of an update, by which the robot detects late updates.

    Attributes:
        station: A random identifier of one run of a station. Without it, the robot ignores a
            restarted station for a second, and cannot distinguish a recording from new updates.
        seq: The number of the update, greater than that of the previous one.
        time: When the update was made, on the station's monotonic clock (s).
    """

    station: Annotated[str, msgspec.Meta(max_length=32)] = ""
    seq: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    time: Annotated[float, msgspec.Meta(ge=0, le=1e12)] | None = None


class Refused(msgspec.Struct, frozen=True):
    """The refusal that a station receives while another one has control.

    Attributes:
        by: The name of the station in control, shortened if it does not fit.
        you: The name of the refused station, for `take_control`; empty if it does not fit.
    """

    by: str
    you: str = ""


NEUTRAL = GamepadState(0.0, 0.0, 0.0, 0.0, 0)
"""A gamepad at rest."""

Value: TypeAlias = bool | int | float
"""A parameter's value in an update."""

GamepadUpdate: TypeAlias = dict[Literal["0", "1", "2", "3"], GamepadState]
"""The wire format: index -> state. The state of a missing gamepad is unchanged."""

DeviceUpdate: TypeAlias = dict[str, dict[str, Value]]
"""The wire format: decimal UID -> parameter -> value. A missing parameter is unchanged."""

_Names: TypeAlias = Annotated[list[str], msgspec.Meta(min_length=1, max_length=2)]
_INDICES = {str(index): index for index in range(GAMEPADS)}


def check_gamepads(update: object, *, buttons: int = BUTTONS) -> dict[int, GamepadState]:
    """Validate a received gamepad update.

    Args:
        update: The argument of `update_gamepads`: decoded MessagePack, or a `GamepadUpdate`.
        buttons: Number of buttons, 0 to 32; higher bits of `btn` are refused.

    Returns:
        Index (0 to 3) -> state. The sticks are not clamped; see `GamepadState.clamped`.

    Raises:
        RemoteProtocolError: A field is missing, unknown, of another type, not finite or out of
            range; the message names it.
    """
    if not isinstance(update, Mapping):
        raise _bad(UPDATE_GAMEPADS, "expected a map of gamepads", "$")
    states = {}
    for key, raw in update.items():
        if not isinstance(key, str) or key not in _INDICES:
            raise _bad(
                UPDATE_GAMEPADS, f"no gamepad {quote(key)}; expected '0' to '{GAMEPADS - 1}'", "$"
            )
        try:
            state = msgspec.convert(raw, GamepadState)
        except msgspec.ValidationError as error:
            raise _bad(UPDATE_GAMEPADS, f"gamepad {key}: {clip(str(error), 200)}", key) from error
        states[_INDICES[key]] = _checked(key, state, buttons)
    return states


def check_devices(update: object) -> dict[int, dict[str, Value]]:
    """Validate a received device update.

    Args:
        update: The argument of `update`: decoded MessagePack, or a `DeviceUpdate`.

    Returns:
        UID (88 bits) -> parameter name -> value. An update contains every connected device, also
        those without changed parameters.

    Raises:
        RemoteProtocolError: A UID is not a decimal number of 88 bits, or a value is not a bool, int
            or float; the message names it.
    """
    try:
        checked = msgspec.convert(update, DeviceUpdate)
    except msgspec.ValidationError as error:
        raise _bad(UPDATE, clip(str(error), 200), "$") from error
    return {_uid(key): values for key, values in checked.items()}


def encode_gamepads(update: Mapping[int, GamepadState], stamp: Stamp | None = None) -> bytes:
    """Return the datagram with the states of gamepads and an optional stamp.

    Raises:
        LocalProtocolError: An index or a field is out of range.
    """
    raw = {str(index): state for index, state in update.items()}
    return _encode(
        UPDATE_GAMEPADS,
        raw,
        lambda: check_gamepads(raw, buttons=32),
        *([] if stamp is None else [stamp]),
    )


def decode_gamepads(datagram: bytes, *, buttons: int = BUTTONS) -> dict[int, GamepadState]:
    """Return index -> state of a control datagram; see `check_gamepads`.

    Raises:
        RemoteProtocolError: It is not such a notification, or a field is invalid.
    """
    return check_gamepads(_decode(UPDATE_GAMEPADS, datagram, most=2), buttons=buttons)


def encode_refused(refused: Refused, most: int) -> bytes:
    """Return the datagram that refuses the gamepads of a station.

    Args:
        refused: The names to send.
        most: The maximum length of the datagram (bytes). Names are omitted or shortened to fit; if
            not even one character fits, the result is empty.
    """
    payload = rpc.encode(rpc.Notification(REFUSED, [refused.by, refused.you]))
    if len(payload) <= most:
        return payload
    for length in range(len(refused.by), 0, -1):
        payload = rpc.encode(rpc.Notification(REFUSED, [refused.by[:length]]))
        if len(payload) <= most:
            return payload
    return b""


def decode_refused(datagram: bytes) -> Refused:
    """Return the names in a refusal.

    Raises:
        RemoteProtocolError: The datagram is not a refusal.
    """
    message = rpc.decode(datagram)
    if not isinstance(message, rpc.Notification) or message.method != REFUSED:
        raise _bad(REFUSED, "expected a notification of this name", "$")
    try:
        return Refused(*msgspec.convert(message.params, _Names))
    except msgspec.ValidationError as error:
        raise _bad(REFUSED, f"expected one or two names: {error}", "$") from error


def encode_devices(update: Mapping[int, Mapping[str, Value]]) -> bytes:
    """Return the datagram with the values of devices.

    Raises:
        LocalProtocolError: A UID or a value is out of range.
    """
    raw = {str(uid): dict(values) for uid, values in update.items()}
    return _encode(UPDATE, raw, lambda: check_devices(raw))


def decode_devices(datagram: bytes) -> dict[int, dict[str, Value]]:
    """Return UID -> parameter -> value of an update datagram; see `check_devices`.

    Raises:
        RemoteProtocolError: It is not such a notification, or a field is invalid.
    """
    return check_devices(_decode(UPDATE, datagram))


def _encode(method: str, update: object, check: Callable[[], object], *more: object) -> bytes:
    # The sender applies the checks of the receiver.
    try:
        check()
    except RemoteProtocolError as error:
        raise LocalProtocolError(error.message, **error.context) from error
    return rpc.encode(rpc.Notification(method, [update, *more]))


def _decode(method: str, datagram: bytes, most: int = 1) -> Any:
    message = rpc.decode(datagram)
    if (
        not isinstance(message, rpc.Notification)
        or message.method != method
        or not 1 <= len(message.params) <= most
    ):
        raise _bad(method, "expected a notification of this name with one argument", "$")
    return message.params[0]


def _bad(method: str, problem: str, field: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"{method}: {problem}", reason="field", field=field)


def _checked(index: str, state: GamepadState, buttons: int) -> GamepadState:
    # A state that was constructed directly has passed no decoder. NaN fails every comparison.
    for name in ("lx", "ly", "rx", "ry"):
        value = getattr(state, name)
        if not -AXIS_MAX <= value <= AXIS_MAX:
            raise _bad(
                UPDATE_GAMEPADS,
                f"gamepad {index}: {name} is {value}, expected -1 to 1",
                f"{index}.{name}",
            )
    if not 0 <= state.btn < 1 << buttons:
        problem = f"gamepad {index}: btn is {state.btn:#x}, but there are {buttons} buttons"
        raise _bad(UPDATE_GAMEPADS, problem, f"{index}.btn")
    return state


def _uid(text: str) -> int:
    # Other digits of Unicode and leading zeros would allow two names for one device.
    if (
        text.isascii()
        and text.isdecimal()
        and len(text) <= 27
        and str(uid := int(text)) == text
        and uid < UID_END
    ):
        return uid
    raise _bad(UPDATE, f"{text[:40]!r} is not a UID (a decimal number of 88 bits)", "$")


def _into_circle(x: float, y: float) -> tuple[float, float]:
    length = math.hypot(x, y)
    return (x, y) if length <= 1.0 else (x / length, y / length)
