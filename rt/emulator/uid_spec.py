"""Parses how the command line names emulated devices."""

import json
from collections.abc import Mapping
from typing import Any, Final

from rt.catalog import Catalog, Peripheral
from rt.emulator.values import checked
from rt.errors import DeviceError
from rt.protocol.uid import UID_END
from rt.text import nearest

MAX_RANGE: Final = 1024
"""The most devices that one range may name."""


def parse_uid_spec(
    spec: str, catalog: Catalog, names: Mapping[str, int] | None = None
) -> tuple[int, dict[str, Any]]:
    """Parse the name of one emulated device, see `parse_uid_specs`.

    Raises:
        DeviceError: The text is invalid, or names more than one device.
    """
    uids, values = parse_uid_specs(spec, catalog, names)
    if len(uids) != 1:
        raise DeviceError(f"{spec!r} names {len(uids)} devices, expected one", spec=spec)
    return uids[0], values


def parse_uid_specs(
    spec: str, catalog: Catalog, names: Mapping[str, int] | None = None
) -> tuple[list[int], dict[str, Any]]:
    """Parse the names of emulated devices: ``UID[:JSON]``.

    UID is decimal or 0x and hexadecimal, a name that the team gave a device, a name in the catalog,
    NAME@N for the device of the catalog with the random part N, or NAME@A..B for those from A to B.
    JSON is an object with the initial values of parameters, by name.

    Args:
        spec: The text.
        catalog: The known types of device.
        names: UIDs by the names that the team gave them.

    Returns:
        The UIDs and the values.

    Raises:
        DeviceError: The text is invalid, or the catalog does not contain the device or a parameter.
    """
    names = names or {}
    # A name may contain a colon.
    head, colon, tail = (spec, "", "") if spec in names else spec.partition(":")
    uids = _uids(head.strip(), catalog, names, spec)
    peripheral = catalog.by_device_id(uids[0] >> 72)
    if peripheral is None:
        raise DeviceError(f"{spec!r}: device id {uids[0] >> 72} is not in the catalog", spec=spec)
    return uids, _values(tail, peripheral, spec) if colon else {}


def _values(text: str, peripheral: Peripheral, spec: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DeviceError(
            f"{spec!r}: the values after the colon are not JSON: {error}", spec=spec
        ) from error
    if not isinstance(values, dict):
        raise DeviceError(
            f'{spec!r}: the values after the colon must be an object such as {{"param": 1.0}}',
            spec=spec,
        )
    try:
        return {name: checked(peripheral.param(name), value) for name, value in values.items()}
    except DeviceError as error:
        raise DeviceError(f"{spec!r}: {error}", spec=spec) from error


def _uids(text: str, catalog: Catalog, names: Mapping[str, int], spec: str) -> list[int]:
    if text in names:
        return [names[text]]
    name, at, number = text.partition("@")
    peripheral = catalog.get(name)
    if peripheral is None or peripheral.device_id is None:
        uid = _integer(text)
        if uid is None or uid >= UID_END:
            raise _unknown(name, catalog, names, spec)
        return [uid]
    first, dots, last = number.partition("..") if at else ("0", "", "")
    least, most = _integer(first), _integer(last if dots else first)
    if least is None or most is None or most >= 1 << 64:
        raise _unknown(name, catalog, names, spec)
    if not least <= most < least + MAX_RANGE:
        raise DeviceError(
            f"{spec!r} names {max(most - least + 1, 0)} devices; "
            f"in NAME@A..B, A must not exceed B, and the range at most {MAX_RANGE} devices",
            spec=spec,
        )
    return [peripheral.device_id << 72 | random for random in range(least, most + 1)]


def _unknown(name: str, catalog: Catalog, names: Mapping[str, int], spec: str) -> DeviceError:
    known = [*names, *(each.name for each in catalog.values() if each.device_id is not None)]
    hint = "" if name in known else nearest(name, known, cutoff=0.7)
    return DeviceError(
        f"{spec!r} names no device; use a UID below 2**88, NAME@N, NAME@A..B, "
        f"or one of {', '.join(known)}{hint}",
        spec=spec,
    )


def _integer(text: str) -> int | None:
    """Parse an integer of 0 or more; return None if the text is not one."""
    try:
        number = int(text, 0)
    except ValueError:
        return None
    return number if number >= 0 else None
