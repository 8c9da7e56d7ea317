"""Resolution of device names to UIDs, and the errors for unknown and disconnected devices."""

from collections.abc import Iterable, Mapping
from typing import Final

from rt.errors import DeviceError
from rt.protocol.uid import UID_END
from rt.text import clip, listed, nearest, quote

RESTART_HINT: Final = "rt.toml is newer than the robot; restart `rt run`"
"""Why a name in rt.toml may be unknown: a robot reads its options only when it starts."""


def resolve_uid(text: str, names: Mapping[str, int], types: Iterable[str] = ()) -> int:
    """Return the UID for a decimal number or a name of the team.

    Args:
        text: The number or name.
        names: UIDs by the names that the team gave them (option ``dev_name``).
        types: Types of devices that the caller also accepts, for the error.

    Raises:
        DeviceError: It is neither; the message suggests the nearest name.

    Examples:
        >>> resolve_uid("left_motor", {"left_motor": 7})
        7
        >>> resolve_uid("12", {"left_motor": 7})
        12
        >>> resolve_uid("left_moter", {"left_motor": 7})
        Traceback (most recent call last):
        rt.errors.DeviceError: there is no device 'left_moter'; did you mean left_motor?
    """
    if text in names:
        return names[text]
    if text.isascii() and text.isdigit() and len(text) <= len(str(UID_END)):
        uid = int(text)
        if uid < UID_END:
            return uid
    types = list(types)
    if text.isascii() and text.isdigit():
        hint = ": the number is too large for a UID; `rt devices` shows UIDs"
    elif not (hint := nearest(text, [*names, *types])):
        known = f"one of {listed(names)}" if names else "a name"
        example = f", a type such as {types[0]}," if types else ""
        hint = f": use a UID{example} or {known}; devices are named in rt.toml, below [dev_name]"
    raise DeviceError(f"there is no device {quote(text)}{hint}", uid=clip(text))


def name_of(uid: int, names: Mapping[str, int]) -> str:
    """Return the team's name for a device, or else its UID."""
    return next((name for name, number in names.items() if number == uid), str(uid))


def not_connected(uid: int, names: Mapping[str, int], connected: Iterable[int]) -> DeviceError:
    """Return the error for a device that is not connected, with the connected ones."""
    names_by_uid = {number: name for name, number in reversed(list(names.items()))}
    others = listed(names_by_uid.get(number, str(number)) for number in sorted(connected)) or "none"
    return DeviceError(
        f"the device {name_of(uid, names)} is not connected; connected: {others}", uid=str(uid)
    )
