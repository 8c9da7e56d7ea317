"""Smart Device messages as plain values that a person can write and read, and back.

`format_message` and `parse_message` are inverse functions. A message is an object with its ``type``
and the fields that travel:

    {"type": "PING"}, {"type": "DEV_DISABLE"} {"type": "SUB_REQ", "device": "limit-switch",
    "params": ["switch0"], "interval": 40} {"type": "SUB_RES", "device": "limit-switch", "params":
    ["switch0"], "interval": 40, "uid": "5"} {"type": "DEV_READ", "params": [0, 1]} {"type":
    "DEV_WRITE", "device": "polar-bear", "params": {"duty_cycle": -0.5}} {"type": "DEV_DATA",
    "params": [0], "data": "000000bf"} {"type": "HB_REQ", "id": 0}, {"type": "HB_RES", "id": 255},
    {"type": "ERROR", "code": "BAD_CHECKSUM"}

Intervals are in ms, as they travel. With a ``device`` parameters have their names, and their values
are numbers, true or false; without one they are ids, and values are bytes in hexadecimal.

The rule of this module: what is written travels exactly as written, or is refused. Nothing is
clamped, and a value that no number of the catalog stands for (NaN, a bool of 2, beyond the limits
of what may be written) is a text of its bytes in hexadecimal.
"""

import ctypes
import re
from collections.abc import Mapping
from typing import Any, Final

from rt.catalog.load import Catalog
from rt.catalog.names import UID_END, resolve_uid
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
from rt.textformat.value import HEX, find_parameter, hint, pack_value, short, unpack_value, wrong

FIELDS: Final = {
    kind: (("device",) if "params" in kind.__struct_fields__ else ()) + kind.__struct_fields__
    for kind in MESSAGES.values()
}
"""The fields of each message beside its type."""

TYPES: Final = {number.name: kind for number, kind in MESSAGES.items()}
"""The messages by the names of their types."""

_NAMES: Final = {kind: name for name, kind in TYPES.items()}


def format_message(
    value: object, catalog: Catalog, names: Mapping[str, int] | None = None
) -> bytes:
    """The frame of a message, without its delimiter.

    Args:
        value: The message, as of JSON.
        catalog: What devices there are.
        names: UIDs by the names that the team gave them: ``device`` may be one of these, a UID, or
            a name of the catalog.

    Raises:
        NotationError: It is not written as a message is; the context has the ``path``.
    """
    if not isinstance(value, dict):
        raise wrong((), f'a message is an object like {{"type": "PING"}}, not {short(value)}')
    if "type" not in value:
        raise wrong((), f'"type" is missing: use one of {", ".join(TYPES)}')
    kind = TYPES.get(value["type"]) if isinstance(value["type"], str) else None
    if kind is None:
        raise wrong(
            ("type",), f"there is no type {short(value['type'])}{hint(value['type'], TYPES)}"
        )
    for field in value:
        if field != "type" and field not in FIELDS[kind]:
            raise wrong(
                (field,),
                f"{_NAMES[kind]} has no field {field!r}{hint(field, ('type', *FIELDS[kind]))}",
            )
    message = _Writer(value, catalog, names or {}).message(kind)
    try:
        return frames.encode(message)[: -len(frames.DELIMITER)]
    except LocalProtocolError as error:
        raise wrong(("params",), error.message) from error


def parse_message(
    frame: bytes, catalog: Catalog, device: Peripheral | None = None
) -> dict[str, Any]:
    """The message of a frame without its delimiter.

    Args:
        frame: The bytes.
        catalog: What devices there are.
        device: The kind of device that the frame goes to or comes from, if it is known; a SUB_RES
            says it itself.

    Raises:
        RemoteProtocolError: It is not a message, or none of that device.
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
    """The kind of Smart Device that a person means: by its name in the catalog, a UID, or a name of the team's.

    Raises:
        DeviceError: There is none; the message names the nearest.
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
    raise DeviceError(f"there is no device {text!r}{hint(text, [*kinds, *names])}", device=text)


class _Writer:
    """Reads the fields of one message."""

    def __init__(
        self, value: Mapping[str, Any], catalog: Catalog, names: Mapping[str, int]
    ) -> None:
        self._value = value
        self._catalog = catalog
        self._names = names

    def message(self, kind: type[Message]) -> Message:
        if kind in {DevWrite, DevData}:
            return kind(*self._carried(limited=kind is DevWrite))
        fields = [field for field in FIELDS[kind] if field != "device"]
        return kind(*(getattr(self, f"_{field}")() for field in fields))

    def _field(self, name: str, what: str) -> Any:
        if name not in self._value:
            raise wrong((), f"{name!r} is missing: {what}")
        return self._value[name]

    def _whole(self, name: str, most: int, what: str) -> int:
        number = self._field(name, f"it has to be {what}")
        if type(number) is not int or not 0 <= number <= most:
            raise wrong((name,), f"{name} has to be {what}, not {short(number)}")
        return number

    def _device(self) -> Peripheral | None:
        if "device" not in self._value:
            return None
        text = self._value["device"]
        if not isinstance(text, str):
            raise wrong(
                ("device",), f"device has to be a name or a UID as a text, not {short(text)}"
            )
        try:
            return find_device(text, self._catalog, self._names)
        except DeviceError as error:
            raise wrong(("device",), error.message) from None

    def _interval(self) -> int:
        return self._whole("interval", INTERVAL_MAX, f"a whole number of ms, 0 to {INTERVAL_MAX}")

    def _id(self) -> int:
        return self._whole("id", 0xFF, "a whole number, 0 to 255")

    def _code(self) -> int:
        allowed = f"0 to 255, or one of {', '.join(code.name for code in ErrorCode)}"
        code = self._field("code", f"it has to be {allowed}")
        if isinstance(code, str) and code in ErrorCode.__members__:
            return ErrorCode[code]
        if isinstance(code, str):
            raise wrong(
                ("code",), f"there is no error {short(code)}{hint(code, ErrorCode.__members__)}"
            )
        return self._whole("code", 0xFF, allowed)

    def _uid(self) -> int:
        what = "a UID in decimal as a text, below 2**88"
        text = self._field("uid", f"it has to be {what}")
        if not (
            isinstance(text, str) and re.fullmatch("[0-9]{1,27}", text) and int(text) < UID_END
        ):
            raise wrong(("uid",), f"uid has to be {what}, not {short(text)}")
        uid, device = int(text), self._device()
        if device is not None and device.device_id != uid >> 72:
            raise wrong(
                ("uid",),
                f"uid has the device id {uid >> 72}, and a {device.name} has {device.device_id}",
            )
        return uid

    def _params(self) -> int:
        """A bitmap, from names if there is a device and from ids if there is none."""
        device = self._device()
        what = (
            "a list of ids, 0 to 15"
            if device is None
            else f"a list of names of parameters of {device.name}"
        )
        listed = self._field("params", f"it has to be {what}")
        if not isinstance(listed, list):
            raise wrong(("params",), f"params has to be {what}, not {short(listed)}")
        bitmap = 0
        for place, item in enumerate(listed):
            path = ("params", place)
            bit = 1 << (
                _id_of(item, path) if device is None else find_parameter(device, item, path).id
            )
            if bitmap & bit:
                raise wrong(path, f"{short(item)} stands twice")
            bitmap |= bit
        return bitmap

    def _carried(self, *, limited: bool) -> tuple[int, bytes]:
        """The bitmap and the bytes of values."""
        device = self._device()
        if device is None:
            if isinstance(self._value.get("params"), dict):
                raise wrong((), '"device" is missing: only the catalog knows parameters by name')
            bitmap = self._params()
            what = "the bytes of the values in hexadecimal"
            data = self._field("data", f"it has to be {what}")
            if not (isinstance(data, str) and HEX.fullmatch(data)):
                raise wrong(("data",), f"data has to be {what}, not {short(data)}")
            return bitmap, bytes.fromhex(data)
        if "data" in self._value:
            raise wrong(
                ("data",),
                "data stands for params without a device: with one they have names and values",
            )
        what = "an object of names and values"
        values = self._field("params", f"it has to be {what}")
        if not isinstance(values, dict):
            raise wrong(("params",), f"params has to be {what}, not {short(values)}")
        packed = {}
        for name, value in values.items():
            param = find_parameter(device, name, ("params", name))
            packed[param.id] = pack_value(param, value, limited=limited)
        return sum(1 << id_ for id_ in packed), b"".join(packed[id_] for id_ in sorted(packed))


def _id_of(item: object, path: tuple[str | int, ...]) -> int:
    if type(item) is not int or not 0 <= item <= 15:
        raise wrong(
            path, f"an id of a parameter has to be a whole number, 0 to 15, not {short(item)}"
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
    params = [param for param in device.params if message.params >> param.id & 1]
    length = sum(ctypes.sizeof(param.platform_type) for param in params)
    if length != len(message.data):
        raise RemoteProtocolError(
            f"these values of a {device.name} take {length} bytes, and there are {len(message.data)}",
            reason="it is not as long as its bitmap asks for",
        )
    values, position = {}, 0
    for param in params:
        size = ctypes.sizeof(param.platform_type)
        values[param.name] = unpack_value(
            param, message.data[position : position + size], limited=isinstance(message, DevWrite)
        )
        position += size
    return values


def _named(bitmap: int, device: Peripheral | None) -> list[str] | list[int]:
    if device is None:
        return [id_ for id_ in range(16) if bitmap >> id_ & 1]
    _check_bitmap(bitmap, device)
    return device.names(bitmap)


def _check_bitmap(bitmap: int, device: Peripheral) -> None:
    if bitmap >> len(device.params):
        raise RemoteProtocolError(
            f"it names the parameter {bitmap.bit_length() - 1}, and a {device.name} has 0 to {len(device.params) - 1}",
            reason="it names a parameter that there is not",
        )
