"""From what a person calls a device to its UID."""

import difflib
from collections.abc import Iterable, Mapping

from rt.errors import DeviceError


def resolve_uid(text: str, names: Mapping[str, int]) -> int:
    """The UID that a decimal number or a name of the team's stands for.

    Raises:
        DeviceError: It is neither; the message has the nearest name.
    """
    if text in names:
        return names[text]
    if text.isascii() and text.isdigit():
        return int(text)
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "use a UID in decimal, or give the device a name with dev_name"
    raise DeviceError(f"there is no device {text!r}: {hint}", uid=text)


def absent_device(uid: int, names: Mapping[str, int], connected: Iterable[int]) -> DeviceError:
    """The error for a device that is not connected, with those that are."""
    called = {number: name for name, number in names.items()}
    others = ", ".join(called.get(number, str(number)) for number in sorted(connected)) or "none"
    return DeviceError(f"the device {called.get(uid, uid)} is not connected; connected: {others}", uid=str(uid))
