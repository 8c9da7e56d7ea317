"""From what a person calls a Smart Device to its UID: the one place that does so, and that says what is wrong with a name."""

from collections.abc import Iterable, Mapping
from typing import Final

from rt.errors import DeviceError
from rt.text import clip, closest, listed, quote

UID_END: Final = 1 << 88
"""One more than the greatest UID."""
RESTART_HINT: Final = "rt.toml is newer than the robot: start `rt run` again"
"""Why a name may be unknown that rt.toml has: a robot reads its options at its start only."""


def resolve_uid(text: str, names: Mapping[str, int], kinds: Iterable[str] = ()) -> int:
    """The UID that a decimal number or a name of the team's stands for.

    Args:
        text: What a person wrote.
        names: UIDs by the names that the team gave them (option ``dev_name``).
        kinds: Types of devices that would have been understood as well, for the message.

    Raises:
        DeviceError: It is neither; the message has the nearest name.

    Examples:
        >>> resolve_uid("left_motor", {"left_motor": 7})
        7
        >>> resolve_uid("12", {"left_motor": 7})
        12
        >>> resolve_uid("left_moter", {"left_motor": 7})
        Traceback (most recent call last):
        rt.errors.DeviceError: there is no device 'left_moter': did you mean left_motor?
    """
    if text in names:
        return names[text]
    if text.isascii() and text.isdigit() and len(text) <= len(str(UID_END)):
        uid = int(text)
        if uid < UID_END:
            return uid
    kinds = list(kinds)
    near = closest(text, [*names, *kinds])
    if text.isascii() and text.isdigit():
        hint = "the number is too large for a UID; `rt devices` shows the UIDs of devices"
    elif near is not None:
        hint = f"did you mean {near}?"
    else:
        known = f"one of {listed(names)}" if names else "a name"
        kind = f", a type such as {kinds[0]}," if kinds else ""
        hint = f"use a UID{kind} or {known}; devices are named in rt.toml, below [dev_name]"
    raise DeviceError(f"there is no device {quote(text)}: {hint}", uid=clip(text))


def name_of(uid: int, names: Mapping[str, int]) -> str:
    """What a person calls a device: the team's name for it, or else its UID."""
    return next((name for name, number in names.items() if number == uid), str(uid))


def not_connected(uid: int, names: Mapping[str, int], connected: Iterable[int]) -> DeviceError:
    """The error for a device that is not connected, with those that are."""
    called = {number: name for name, number in reversed(list(names.items()))}
    others = listed(called.get(number, str(number)) for number in sorted(connected)) or "none"
    return DeviceError(
        f"the device {name_of(uid, names)} is not connected; connected: {others}", uid=str(uid)
    )
