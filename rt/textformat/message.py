"""The text format of Smart Device messages: messages as plain values, and back.

`format_message` and `parse_message` are inverse functions. A message is an object with its ``type``
and its fields:

    {"type": "PING"}, {"type": "DEV_DISABLE"}
    {"type": "SUB_REQ", "device": "limit-switch", "params": ["switch0"], "interval": 40}
    {"type": "SUB_RES", "device": "limit-switch", "params": ["switch0"], "interval": 40,
     "uid": "5"}
    {"type": "DEV_READ", "params": [0, 1]}
    {"type": "DEV_WRITE", "device": "polar-bear", "params": {"duty_cycle": -0.5}}
    {"type": "DEV_DATA", "params": [0], "data": "000000bf"}
    {"type": "HB_REQ", "id": 0}, {"type": "HB_RES", "id": 255}
    {"type": "ERROR", "code": "BAD_CHECKSUM"}

Intervals are in ms. With a ``device``, parameters are names and their values are numbers, true or
false; without one they are ids, and the values are bytes in hexadecimal.

Invariant: a message is converted exactly or refused; nothing is clamped. Bytes that no valid value
    represents (NaN, a bool of 2, a write beyond the limits) are text in hexadecimal.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from rt.catalog.device_names import resolve_uid
from rt.catalog.load import Catalog
from rt.catalog.peripheral import Peripheral
from rt.errors import DeviceError, LocalProtocolError, RemoteProtocolError
from rt.protocol import frames
from rt.protocol.message import (
    INTERVAL_MAX,
    MESSAGES,
    DevData,
    DevWrite,
    Error,
    ErrorCode,
    Message,
    SubRes,
)
from rt.protocol.uid import UID_END
from rt.textformat.value import (
    HEX,
    abbreviate,
    find_parameter,
    pack_value,
    suggest,
    text_error,
    unpack_value,
)

FIELDS: Final = {
    kind: (("device",) if "params" in kind.__struct_fields__ else ()) + kind.__struct_fields__
    for kind in MESSAGES.values()
}
"""The fields of each message, without its type."""

TYPES: Final = {number.name: kind for number, kind in MESSAGES.items()}
"""The messages by the name of the type."""

_NAMES: Final = {kind: name for name, kind in TYPES.items()}


def format_message(
    value: object, catalog: Catalog, names: Mapping[str, int] | None = None
) -> bytes:
    """Return the frame of a message, without its delimiter.

    Args:
        value: The message from JSON.
        catalog: The device types.
        names: UIDs by the names that the team gave them. ``device`` is one of these, a UID, or a
            name from the catalog.

    Raises:
        TextFormatError: It is not a message in this format; the context has the ``path``.
    """
    if not isinstance(value, dict):
        raise text_error(
            (), f'a message must be an object like {{"type": "PING"}}, not {abbreviate(value)}'
        )
    if "type" not in value:
        raise text_error((), f'"type" is missing; use one of {", ".join(TYPES)}')
    kind = TYPES.get(value["type"]) if isinstance(value["type"], str) else None
    if kind is None:
        raise text_error(
            ("type",), f"unknown type {abbreviate(value['type'])}{suggest(value['type'], TYPES)}"
        )
    for field in value:
        if field != "type" and field not in FIELDS[kind]:
            raise text_error(
                (field,),
                f"{_NAMES[kind]} has no field {field!r}{suggest(field, ('type', *FIELDS[kind]))}",
            )
    message = _Writer(value, catalog, names or {}).message(kind)
    try:
        return frames.encode(message)[: -len(frames.DELIMITER)]
    except LocalProtocolError as error:
        raise text_error(("params",), error.message) from error


def parse_message(
    frame: bytes, catalog: Catalog, device: Peripheral | None = None
) -> dict[str, Any]:
    """Return the message of a frame without its delimiter.

    Args:
        frame: The bytes.
        catalog: The device types.
        device: The type of the device that receives or sends the frame, if it is known; a SUB_RES
            contains it.

    Raises:
        RemoteProtocolError: It is not a message, or not one of that device.
    """
    message = frames.decode(frame)
    value: dict[str, Any] = {"type": _NAMES[type(message)]}
    if isinstance(message, SubRes):
        device = catalog.by_device_id(message.device_id)
        if device is not None and message.params >> len(device.params):
            device = None
    if device is not None and "device" in FIELDS[type(message)]:
        value["device"] = device.name
    return value | _fields(message, device)


def find_device(text: str, catalog: Catalog, names: Mapping[str, int] | None = None) -> Peripheral:
    """Return the type of a Smart Device by its name in the catalog, a UID, or the team's name.

    Raises:
        DeviceError: There is none; the message suggests the nearest name.
    """
    peripheral = catalog.get(text)
    if peripheral is not None:
        if peripheral.device_id is None:
            raise DeviceError(f"{text!r} is not a Smart Device", device=text)
        return peripheral
    names = names or {}
    if text in names or (text.isascii() and text.isdigit()):
        return catalog.of_uid(resolve_uid(text, names))
    kinds = [kind.name for kind in catalog.values() if kind.device_id is not None]
    raise DeviceError(f"there is no device {text!r}{suggest(text, [*kinds, *names])}", device=text)


class _Writer:
    """Converts the fields of one message."""

    def __init__(
        self, value: Mapping[str, Any], catalog: Catalog, names: Mapping[str, int]
    ) -> None:
        self._value = value
        self._catalog = catalog
        self._names = names

    def message(self, kind: type[Message]) -> Message:
        if kind in {DevWrite, DevData}:
            return kind(*self._packed_values(limited=kind is DevWrite))
        fields = [field for field in FIELDS[kind] if field != "device"]
        return kind(*(getattr(self, f"_{field}")() for field in fields))

    def _field(self, name: str, what: str, is_valid: Callable[[Any], bool]) -> Any:
        if name not in self._value:
            raise text_error((), f"{name!r} is missing: it must be {what}")
        value = self._value[name]
        if not is_valid(value):
            raise text_error((name,), f"{name} must be {what}, not {abbreviate(value)}")
        return value

    def _whole(self, name: str, most: int, what: str) -> int:
        number: int = self._field(name, what, lambda each: type(each) is int and 0 <= each <= most)
        return number

    def _device(self) -> Peripheral | None:
        if "device" not in self._value:
            return None
        text = self._value["device"]
        if not isinstance(text, str):
            raise text_error(
                ("device",), f"device must be a name or a UID as text, not {abbreviate(text)}"
            )
        try:
            return find_device(text, self._catalog, self._names)
        except DeviceError as error:
            raise text_error(("device",), error.message) from None

    def _interval(self) -> int:
        return self._whole("interval", INTERVAL_MAX, f"a whole number of ms, 0 to {INTERVAL_MAX}")

    def _id(self) -> int:
        return self._whole("id", 0xFF, "a whole number, 0 to 255")

    def _code(self) -> int:
        allowed = f"0 to 255, or one of {', '.join(code.name for code in ErrorCode)}"
        code = self._value.get("code")
        if not isinstance(code, str):
            return self._whole("code", 0xFF, allowed)
        if code in ErrorCode.__members__:
            return ErrorCode[code]
        raise text_error(
            ("code",), f"unknown error {abbreviate(code)}{suggest(code, ErrorCode.__members__)}"
        )

    def _uid(self) -> int:
        text = self._field("uid", "a decimal UID as text, below 2**88", _is_uid)
        uid, device = int(text), self._device()
        if device is not None and device.device_id != uid >> 72:
            raise text_error(
                ("uid",),
                f"uid has the device id {uid >> 72}, but a {device.name} has {device.device_id}",
            )
        return uid

    def _params(self) -> int:
        """Return a bitmap, from names if there is a device, else from ids."""
        device = self._device()
        what = (
            "a list of ids, 0 to 15"
            if device is None
            else f"a list of names of parameters of {device.name}"
        )
        listed = self._field("params", what, lambda value: isinstance(value, list))
        bitmap = 0
        for place, item in enumerate(listed):
            path = ("params", place)
            bit = 1 << (
                _id_of(item, path) if device is None else find_parameter(device, item, path).id
            )
            if bitmap & bit:
                raise text_error(path, f"{abbreviate(item)} appears twice")
            bitmap |= bit
        return bitmap

    def _packed_values(self, *, limited: bool) -> tuple[int, bytes]:
        """Return the bitmap and the bytes of values."""
        device = self._device()
        if device is None:
            if isinstance(self._value.get("params"), dict):
                raise text_error((), '"device" is missing; names of parameters need one')
            bitmap = self._params()
            data = self._field("data", "the bytes of the values in hexadecimal", _is_hexadecimal)
            return bitmap, bytes.fromhex(data)
        if "data" in self._value:
            raise text_error(
                ("data",),
                "data is only allowed without a device; with one, use names and values in params",
            )
        values = self._field(
            "params", "an object of names and values", lambda value: isinstance(value, dict)
        )
        packed = {}
        for name, value in values.items():
            param = find_parameter(device, name, ("params", name))
            packed[param.id] = pack_value(param, value, limited=limited)
        return sum(1 << id_ for id_ in packed), b"".join(packed[id_] for id_ in sorted(packed))


def _is_uid(value: Any) -> bool:
    return bool(
        isinstance(value, str) and re.fullmatch("[0-9]{1,27}", value) and int(value) < UID_END
    )


def _is_hexadecimal(value: Any) -> bool:
    return isinstance(value, str) and HEX.fullmatch(value) is not None


def _id_of(item: object, path: tuple[str | int, ...]) -> int:
    if type(item) is not int or not 0 <= item <= 15:
        raise text_error(
            path, f"a parameter id must be a whole number, 0 to 15, not {abbreviate(item)}"
        )
    return item


def _fields(message: Message, device: Peripheral | None) -> dict[str, Any]:
    if isinstance(message, DevWrite | DevData) and device is not None:
        return {"params": _values(message, device)}
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    if "params" in fields:
        fields["params"] = _named(fields["params"], device)
    if isinstance(message, DevWrite | DevData):
        fields["data"] = message.data.hex()
    elif isinstance(message, SubRes):
        fields["uid"] = str(message.uid)
    elif isinstance(message, Error) and message.code in set(ErrorCode):
        fields["code"] = ErrorCode(message.code).name
    return fields


def _values(message: DevWrite | DevData, device: Peripheral) -> dict[str, Any]:
    _check_bitmap(message.params, device)
    length, _ = device.packing.slices(message.params)
    if length != len(message.data):
        raise RemoteProtocolError(
            f"expected {length} bytes of values from a {device.name}, got {len(message.data)}",
            reason="it is not as long as its bitmap requires",
        )
    values, position = {}, 0
    for param in device.params:
        if message.params >> param.id & 1:
            end = position + param.size
            values[param.name] = unpack_value(
                param, message.data[position:end], limited=isinstance(message, DevWrite)
            )
            position = end
    return values


def _named(bitmap: int, device: Peripheral | None) -> list[str] | list[int]:
    if device is None:
        return [id_ for id_ in range(16) if bitmap >> id_ & 1]
    _check_bitmap(bitmap, device)
    return device.names(bitmap)


def _check_bitmap(bitmap: int, device: Peripheral) -> None:
    if bitmap >> len(device.params):
        raise RemoteProtocolError(
            f"unknown parameter {bitmap.bit_length() - 1}: a {device.name} has 0 to "
            f"{len(device.params) - 1}",
            reason="it has an unknown parameter",
        )
