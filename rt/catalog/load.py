"""catalog.toml -> typed peripherals. A bad catalog is refused whole, with the place and what is allowed."""

import math
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from rt.catalog.parameter import Parameter
from rt.catalog.peripheral import DEFAULT_SUB_INTERVAL, Peripheral
from rt.errors import CatalogError, DeviceError

MAX_PARAMS = 16
"""The most parameters of a Smart Device: its bitmaps are 16 bits wide."""

Seconds = Annotated[float, msgspec.Meta(gt=0, le=65.535)]


class _ParameterSpec(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$")]
    type: str
    lower: float = -math.inf
    upper: float = math.inf
    readable: bool = True
    writeable: bool = False
    subscribed: bool = True


class _PeripheralSpec(msgspec.Struct, forbid_unknown_fields=True):
    params: list[_ParameterSpec]
    device_id: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] | None = None
    sub_interval: Seconds = DEFAULT_SUB_INTERVAL
    write_interval: Seconds | None = None
    heartbeat_interval: Seconds | None = None


class Catalog(Mapping[str, Peripheral]):
    """Every peripheral that rt knows, by name; the key of a Smart Device on the wire is its device id."""

    def __init__(self, peripherals: Mapping[str, Peripheral], source: str = "") -> None:
        self._peripherals = dict(peripherals)
        self._by_device_id = {p.device_id: p for p in peripherals.values() if p.device_id is not None}
        self.source = source

    def __getitem__(self, name: str) -> Peripheral:
        return self._peripherals[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._peripherals)

    def __len__(self) -> int:
        return len(self._peripherals)

    def by_device_id(self, device_id: int) -> Peripheral | None:
        """The Smart Device whose UIDs carry that id, or None."""
        return self._by_device_id.get(device_id)

    def of_uid(self, uid: int) -> Peripheral:
        """The type of the Smart Device of a UID.

        Raises:
            DeviceError: No peripheral of the catalog has the UID's device id.
        """
        peripheral = self._by_device_id.get(uid >> 72)
        if peripheral is None:
            raise DeviceError(f"no peripheral of {self.source} has device id {uid >> 72}", uid=str(uid))
        return peripheral


def load(path: Path | None = None) -> Catalog:
    """Read a catalog file, or the one that rt carries.

    Raises:
        CatalogError: The file cannot be read or anything in it is wrong; nothing of it is used then.
    """
    path = path or builtin_path()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: the catalog cannot be read: {error}", file=str(path)) from error
    return parse(text, str(path))


def parse(text: str, source: str = "catalog") -> Catalog:
    """The catalog that a TOML text describes; ``source`` names it in errors.

    Raises:
        CatalogError: Anything in it is wrong.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{source}: {error}", file=source) from None
    peripherals: dict[str, Peripheral] = {}
    ids: dict[int, str] = {}
    for name, table in tables.items():
        place = f"{source}:{_line_of_table(text, name)}: [{name}]"
        peripheral = _peripheral(name, table, place)
        if peripheral.device_id is not None:
            other = ids.setdefault(peripheral.device_id, name)
            if other != name:
                raise CatalogError(
                    f"{place} device_id = {peripheral.device_id} is taken by [{other}]", file=source, table=name
                )
        peripherals[name] = peripheral
    return Catalog(peripherals, source)


def _peripheral(name: str, table: object, place: str) -> Peripheral:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise CatalogError(f"{place} the name of a peripheral is made of a-z, 0-9 and -", table=name)
    try:
        spec = msgspec.convert(table, _PeripheralSpec)
    except msgspec.ValidationError as error:
        raise CatalogError(f"{place} {_field(error)}", table=name) from None
    if spec.device_id is not None and len(spec.params) > MAX_PARAMS:
        raise CatalogError(
            f"{place} has {len(spec.params)} parameters; a Smart Device has at most {MAX_PARAMS}", table=name
        )
    seen: set[str] = set()
    params = []
    for number, param in enumerate(spec.params):
        where = f"{place} params[{number}] {param.name!r}"
        if param.name in seen:
            raise CatalogError(f"{where} stands twice", table=name, param=param.name)
        seen.add(param.name)
        if not param.lower <= param.upper:
            raise CatalogError(f"{where} lower = {param.lower} is greater than upper = {param.upper}", table=name)
        try:
            ctype = Parameter.parse_ctype(param.type)
        except ValueError as error:
            raise CatalogError(f"{where} type {error}", table=name, param=param.name) from None
        params.append(
            Parameter(
                param.name, ctype, number, param.lower, param.upper, param.readable, param.writeable, param.subscribed
            )
        )
    return Peripheral(
        name=name,
        device_id=spec.device_id,
        sub_interval=spec.sub_interval,
        write_interval=spec.write_interval,
        heartbeat_interval=spec.heartbeat_interval,
        params=tuple(params),
    )


def builtin_path() -> Path:
    """The catalog that comes with rt: beside the package when installed, at the top of a source tree."""
    installed = resources.files("rt.catalog") / "catalog.toml"
    path = Path(str(installed))
    return path if path.exists() or hasattr(sys, "_MEIPASS") else Path(__file__).parents[2] / "catalog.toml"


def _field(error: msgspec.ValidationError) -> str:
    # msgspec says what is wrong, " - at ", and the place as a path that begins with a dollar sign.
    what, _, where = str(error).partition(" - at ")
    field = where.strip("`").removeprefix("$").lstrip(".")
    return f"{field}: {what}" if field else what


def _line_of_table(text: str, name: str) -> int:
    pattern = re.compile(rf"^[ \t]*\[[ \t]*[\"']?{re.escape(name)}[\"']?\s*\]", re.MULTILINE)
    match = pattern.search(text)
    return text.count("\n", 0, match.start()) + 1 if match else 1
