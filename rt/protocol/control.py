"""What control and update datagrams carry: gamepads towards the robot, device values away from it.

Both are notifications of `rt.protocol.rpc`: `[2, "update_gamepads", [{"0": {"lx": .., "ly": ..,
"rx": .., "ry": .., "btn": ..}}]]` (perhaps with a `Stamp` as a second argument) and `[2, "update",
[{"<uid>": {"<param>": value}}]]`. A station whose gamepads are refused gets `[2, "refused", [by,
you]]` back: the name of the station in control, and its own for `take_control`. The same structures
are the arguments of methods of those names, so a handler annotates its argument with
`GamepadUpdate` or `DeviceUpdate` and turns it with `check_gamepads` or `check_devices` into values with integer
keys.

The rule of this module: a gamepad moves motors, so a field that is not exactly what it must be
refuses the whole update with an error that names the field. Nothing is guessed, and nothing is
silently brought into range but a stick's overshoot.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from rt.errors import LocalProtocolError, RemoteProtocolError
from rt.protocol import rpc
from rt.text import clip, quote

UPDATE_GAMEPADS = "update_gamepads"
UPDATE = "update"
REFUSED = "refused"

GAMEPADS = 4
"""Gamepads have the indices 0 to 3."""

BUTTONS = 17
"""Buttons of the gamepad of the built-in catalog; bit i of `btn` is its i-th bool parameter."""

UID_MAX = (1 << 88) - 1

AXIS_MAX = 1.1
"""How far a stick may be said to stand: some gamepads overshoot 1 by their calibration, and `clamped` takes that back."""

Axis: TypeAlias = Annotated[float, msgspec.Meta(ge=-AXIS_MAX, le=AXIS_MAX)]


class GamepadState(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One gamepad at one moment; every field has to be said.

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
        """The same gamepad with each stick inside the unit circle, its direction kept."""
        lx, ly = _into_circle(self.lx, self.ly)
        rx, ry = _into_circle(self.rx, self.ry)
        return GamepadState(lx, ly, rx, ry, self.btn)


class Stamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a driver's station may say of an update beside it, as the second argument, so that a late one is known as such.

    Attributes:
        station: Which run of which station it is: chosen at random when the station starts. Without
            one a station that starts anew is heard after a second only, and of what it sends a
            recording may be taken for news.
        seq: The number of the update; each is greater than the one before.
        time: When the update was made, by the station's monotonic clock (s).
    """

    station: Annotated[str, msgspec.Meta(max_length=32)] = ""
    seq: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    time: Annotated[float, msgspec.Meta(ge=0, le=1e12)] | None = None


class Refused(msgspec.Struct, frozen=True):
    """What a station is told whose gamepads are refused since another one has control.

    Attributes:
        by: The name of the station in control; shortened where the whole does not fit.
        you: The name of the refused station, for `take_control`; empty where it does not fit.
    """

    by: str
    you: str = ""


NEUTRAL = GamepadState(0.0, 0.0, 0.0, 0.0, 0)
"""A gamepad that nobody touches."""

Value: TypeAlias = bool | int | float
"""A parameter's value in an update."""

GamepadUpdate: TypeAlias = dict[Literal["0", "1", "2", "3"], GamepadState]
"""As it travels: index -> state; an index that is absent says nothing about that gamepad."""

DeviceUpdate: TypeAlias = dict[str, dict[str, Value]]
"""As it travels: UID in decimal -> parameter -> value; a parameter that is absent has not changed."""

_Names: TypeAlias = Annotated[list[str], msgspec.Meta(min_length=1, max_length=2)]
_INDICES = {str(index): index for index in range(GAMEPADS)}


def check_gamepads(update: object, *, buttons: int = BUTTONS) -> dict[int, GamepadState]:
    """Check a gamepad update that came from outside.

    Args:
        update: The argument of `update_gamepads`: decoded MessagePack, or a `GamepadUpdate`.
        buttons: Number of buttons that exist, 0 to 32; a higher bit of `btn` is refused.

    Returns:
        Index (0 to 3) -> state, sticks as they came; see `GamepadState.clamped`.

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
                UPDATE_GAMEPADS,
                f"there is no gamepad {quote(key)}, only '0' to '{GAMEPADS - 1}'",
                "$",
            )
        try:
            state = msgspec.convert(raw, GamepadState)
        except msgspec.ValidationError as error:
            raise _bad(UPDATE_GAMEPADS, f"gamepad {key}: {clip(str(error), 200)}", key) from error
        states[_INDICES[key]] = _checked(key, state, buttons)
    return states


def check_devices(update: object) -> dict[int, dict[str, Value]]:
    """Check a device update that came from outside.

    Args:
        update: The argument of `update`: decoded MessagePack, or a `DeviceUpdate`.

    Returns:
        UID (88 bits) -> parameter name -> value. Every connected device is in it, with no parameter
        when none changed.

    Raises:
        RemoteProtocolError: A UID is no decimal number of 88 bits, or a value no bool, int or
            float; the message names it.
    """
    try:
        checked = msgspec.convert(update, DeviceUpdate)
    except msgspec.ValidationError as error:
        raise _bad(UPDATE, clip(str(error), 200), "$") from error
    return {_uid(key): values for key, values in checked.items()}


def encode_gamepads(update: Mapping[int, GamepadState], stamp: Stamp | None = None) -> bytes:
    """The datagram that says the state of one or more gamepads, and perhaps when.

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
    """Index -> state of a control datagram; see `check_gamepads`.

    Raises:
        RemoteProtocolError: It is no such notification, or a field is wrong.
    """
    return check_gamepads(_decode(UPDATE_GAMEPADS, datagram, most=2), buttons=buttons)


def encode_refused(refused: Refused, most: int) -> bytes:
    """The datagram that tells a station that its gamepads are refused.

    Args:
        refused: What to tell.
        most: Length (bytes) of the datagram at most. Names are left out or shortened to fit;
            without any room for one, the result is empty.
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
    """What a datagram says that tells a station that its gamepads are refused.

    Raises:
        RemoteProtocolError: The datagram is of another form.
    """
    message = rpc.decode(datagram)
    if not isinstance(message, rpc.Notification) or message.method != REFUSED:
        raise _bad(REFUSED, "expected one notification of this name", "$")
    try:
        return Refused(*msgspec.convert(message.params, _Names))
    except msgspec.ValidationError as error:
        raise _bad(REFUSED, f"expected one or two names: {error}", "$") from error


def encode_devices(update: Mapping[int, Mapping[str, Value]]) -> bytes:
    """The datagram that says the values of devices.

    Raises:
        LocalProtocolError: A UID or a value is out of range.
    """
    raw = {str(uid): dict(values) for uid, values in update.items()}
    return _encode(UPDATE, raw, lambda: check_devices(raw))


def decode_devices(datagram: bytes) -> dict[int, dict[str, Value]]:
    """UID -> parameter -> value of an update datagram; see `check_devices`.

    Raises:
        RemoteProtocolError: It is no such notification, or a field is wrong.
    """
    return check_devices(_decode(UPDATE, datagram))


def _encode(method: str, update: object, check: Callable[[], object], *more: object) -> bytes:
    # What we may not receive we may not send; the check of the receiver is the check of the sender.
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
        raise _bad(method, "expected one notification of this name with one argument", "$")
    return message.params[0]


def _bad(method: str, fault: str, field: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"{method}: {fault}", reason="field", field=field)


def _checked(index: str, state: GamepadState, buttons: int) -> GamepadState:
    # A state that was built here has passed no decoder, so the ranges are looked at again; NaN
    # fails every comparison.
    for name in ("lx", "ly", "rx", "ry"):
        value = getattr(state, name)
        if not -AXIS_MAX <= value <= AXIS_MAX:
            raise _bad(
                UPDATE_GAMEPADS,
                f"gamepad {index}: {name} is {value}, allowed is -1 to 1",
                f"{index}.{name}",
            )
    if not 0 <= state.btn < 1 << buttons:
        fault = f"gamepad {index}: btn is {state.btn:#x}, there are {buttons} buttons"
        raise _bad(UPDATE_GAMEPADS, fault, f"{index}.btn")
    return state


def _uid(text: str) -> int:
    # The digits of other scripts and leading zeros would let one device have two names.
    if (
        text.isascii()
        and text.isdecimal()
        and len(text) <= 27
        and str(uid := int(text)) == text
        and uid <= UID_MAX
    ):
        return uid
    raise _bad(UPDATE, f"{text[:40]!r} is no UID (a decimal number of 88 bits)", "$")


def _into_circle(x: float, y: float) -> tuple[float, float]:
    length = math.hypot(x, y)
    return (x, y) if length <= 1.0 else (x / length, y / length)
