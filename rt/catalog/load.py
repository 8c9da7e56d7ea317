"""Loading of catalog.toml.

Invariant: a catalog with any problem is refused, and the error lists all problems.
"""

import re
import stat
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from rt.catalog import check
from rt.catalog.peripheral import Peripheral
from rt.catalog.problem import Problem
from rt.errors import CatalogError, DeviceError
from rt.text import toml_error

MAX_FILE_SIZE: Final = 1 << 20
"""The maximum size of a catalog file (bytes); the built-in one has 7000."""
_MAX_SHOWN = 20


class Catalog(Mapping[str, Peripheral]):
    """The types of peripherals by name, and those of Smart Devices also by device id."""

    def __init__(self, peripherals: Mapping[str, Peripheral], source: str = "") -> None:
        self._peripherals = dict(peripherals)
        self._by_device_id = {
            p.device_id: p for p in peripherals.values() if p.device_id is not None
        }
        self.source = source

    def __getitem__(self, name: str) -> Peripheral:
        return self._peripherals[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._peripherals)

    def __len__(self) -> int:
        return len(self._peripherals)

    def by_device_id(self, device_id: int) -> Peripheral | None:
        """Return the type of Smart Device with a device id, or None."""
        return self._by_device_id.get(device_id)

    def of_uid(self, uid: int) -> Peripheral:
        """Return the type of the Smart Device with a UID.

        Raises:
            DeviceError: The catalog has no peripheral with the UID's device id.
        """
        peripheral = self._by_device_id.get(uid >> 72)
        if peripheral is None:
            raise DeviceError(
                f"{self.source} has no peripheral with device id {uid >> 72}", uid=str(uid)
            )
        return peripheral


def load(path: Path | None = None) -> Catalog:
    """Load a catalog file, or the built-in one.

    A file defines the Smart Devices. Peripherals that are not Smart Devices, such as the gamepads,
    are built in. A file may contain them, with the same parameters.

    Raises:
        CatalogError: The file cannot be read, or has a problem.
    """
    builtin = parse(_read(builtin_path()), str(builtin_path()))
    if path is None:
        return builtin
    text = _read(path)
    own = parse(text, str(path))
    _refuse(check.check_builtin_names(own, builtin), str(path), text)
    rest = {
        name: each for name, each in builtin.items() if each.device_id is None and name not in own
    }
    return Catalog({**own, **rest}, str(path))


def parse(text: str, source: str = "catalog") -> Catalog:
    """Return the catalog in a TOML text; errors name it as ``source``.

    Raises:
        CatalogError: The text has a problem.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason, line, _ = toml_error(error, text)
        place = f"{source}:{line}: not TOML" if line else f"{source}: cannot parse this TOML"
        raise CatalogError(
            f"{place}: {reason[:1].lower()}{reason[1:]}", file=source, line=line
        ) from None
    return from_tables(tables, source, text)


def from_tables(tables: Mapping[str, object], source: str = "catalog", text: str = "") -> Catalog:
    """Return the catalog in tables that are structured like catalog.toml.

    Args:
        tables: The tables by name of the peripheral. Each has ``params`` (a list of ``name``,
            ``type`` and further arguments of ``Parameter``). One of a Smart Device also has
            ``device_id``, and optionally ``sub_interval``, ``write_interval`` and
            ``heartbeat_interval`` (s).
        source: The name of the catalog in errors.
        text: The text of the tables, for line numbers in errors.

    Raises:
        CatalogError: The tables have problems. The message has one line for each, with position,
            value and what is expected. The context has ``file``, ``table``, ``param`` and
            ``field`` of the first problem, and all lines as ``faults``.

    Example:
        >>> lit = {"name": "lit", "type": "bool", "writeable": True}
        >>> lamps = from_tables({"lamp": {"device_id": 77, "params": [lit]}})
        >>> lamps["lamp"].param("lit").writeable
        True
        >>> from_tables({"lamp": {"device_id": 77, "params": [lit | {"type": "bol"}]}})
        Traceback (most recent call last):
        ...
        rt.errors.CatalogError: catalog: [lamp] params[0] 'lit' type: unknown type 'bol'; did ...
    """
    peripherals, problems = check.check(tables)
    _refuse(problems, source, text)
    return Catalog(peripherals, source)


def builtin_path() -> Path:
    """Return the path of the built-in catalog: in the package, or at the top of a source tree."""
    installed = resources.files("rt.catalog") / "catalog.toml"
    path = Path(str(installed))
    return (
        path
        if path.exists() or hasattr(sys, "_MEIPASS")
        else Path(__file__).parents[2] / "catalog.toml"
    )


def _refuse(problems: list[Problem], source: str, text: str) -> None:
    if not problems:
        return
    sentences = []
    for problem in problems[:_MAX_SHOWN]:
        line = _line_of(text, problem.table, problem.param)
        sentences.append(
            f"{source}: {problem.sentence}"
            if line is None
            else f"{source}:{line}: {problem.sentence}"
        )
    if len(problems) > _MAX_SHOWN:
        sentences.append(f"{source}: and {len(problems) - _MAX_SHOWN} more")
    first = problems[0]
    raise CatalogError(
        "\n".join(sentences),
        file=source,
        table=first.table,
        param=first.param,
        field=first.field,
        faults=sentences,
    )


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # reading a FIFO would never end
            what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise CatalogError(f"{path}: cannot read the catalog: {what}", file=str(path))
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CatalogError(f"{path}: cannot read the catalog: {reason}", file=str(path)) from error
    if len(data) > MAX_FILE_SIZE:
        raise CatalogError(
            f"{path}: too large for a catalog: more than {MAX_FILE_SIZE} bytes", file=str(path)
        )
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CatalogError(f"{path}:{line}: not UTF-8 text", file=str(path), line=line) from None


def _line_of(text: str, table: str, param: str | None) -> int | None:
    """Return the line of a table, or of a parameter in it; None if the table is not found.

    `tomllib` returns values without positions. At worst the line is wrong.
    """
    name = rf"[\"']?{re.escape(table)}[\"']?"
    start = re.search(
        rf"^[ \t]*(?:\[\[?[ \t]*{name}[ \t]*[\].]|{name}[ \t]*[.=])", text, re.MULTILINE
    )
    if start is None:
        return None
    position = start.start()
    if param is not None:
        other = re.compile(
            rf"^[ \t]*\[\[?[ \t]*(?!{name}[ \t]*[\].])[\w\"'-]", re.MULTILINE
        ).search(text, start.end())
        end = other.start() if other else len(text)
        found = re.compile(rf"\bname[\"']?[ \t]*=[ \t]*[\"']{re.escape(param)}[\"']").search(
            text, position, end
        )
        position = found.start() if found else position
    return text.count("\n", 0, position) + 1
