"""How a person names an emulated device on the command line."""

import json
from collections.abc import Iterable
from typing import Any

from rt.catalog import Catalog
from rt.errors import DeviceError


def parse_uid_spec(spec: str, catalog: Catalog) -> tuple[int, dict[str, Any]]:
    """Read what names an emulated device: ``UID[:JSON]``.

    UID is decimal or 0x and hexadecimal, or a name of the catalog, or NAME@N for one whose random part is N. JSON is an object
    of parameter names and the values to start with.

    Returns:
        The UID and the values.

    Raises:
        DeviceError: The text is none of these, or the catalog does not know the device or a parameter.
    """
    head, colon, tail = spec.partition(":")
    uid = _parse_uid(head.strip(), catalog, spec)
    peripheral = catalog.by_device_id(uid >> 72)
    if peripheral is None:
        raise DeviceError(f"{spec!r}: no device of the catalog has device id {uid >> 72}", spec=spec)
    try:
        values = json.loads(tail) if colon else {}
    except json.JSONDecodeError as error:
        raise DeviceError(f"{spec!r}: the values after the colon are not JSON: {error}", spec=spec) from error
    if not isinstance(values, dict):
        raise DeviceError(f'{spec!r}: the values after the colon must be an object, as {{"param": 1.0}}.', spec=spec)
    try:
        return uid, {name: peripheral.param(name).checked(value) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise DeviceError(f"{spec!r}: {error}", spec=spec) from error


def _parse_uid(text: str, catalog: Catalog, spec: str) -> int:
    name, at, number = text.partition("@")
    peripheral = catalog.get(name)
    if peripheral is not None and peripheral.device_id is not None:
        uid, most = _integer(number) if at else 0, 1 << 64
    else:
        peripheral, uid, most = None, _integer(text), 1 << 88
    if uid is None or not 0 <= uid < most:
        names = ", ".join(_names(catalog))
        raise DeviceError(f"{spec!r} names no device: use a UID below 2**88, or one of {names}, or NAME@N", spec=spec)
    return uid if peripheral is None or peripheral.device_id is None else peripheral.device_id << 72 | uid


def _names(catalog: Catalog) -> Iterable[str]:
    return (peripheral.name for peripheral in catalog.values() if peripheral.device_id is not None)


def _integer(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None
