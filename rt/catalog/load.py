"""catalog.toml -> typed peripherals. A bad catalog is refused whole, and all that is wrong in it is told at once."""

import re
import stat
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from rt.catalog import check
from rt.catalog.line_map import line_of
from rt.catalog.peripheral import Peripheral
from rt.catalog.problem import Problem
from rt.errors import CatalogError, DeviceError

MAX_FILE_SIZE: Final = 1 << 20
"""Bytes of a catalog file at most; the one that rt carries has 7000."""
_MAX_SHOWN = 20
_SYNTAX_PLACE = re.compile(
    r"^(?P<reason>.*?) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$",
    re.DOTALL,
)


class Catalog(Mapping[str, Peripheral]):
    """Every peripheral that rt knows, by name; the key of a Smart Device on the wire is its device id."""

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
        """The Smart Device whose UIDs carry that id, or None."""
        return self._by_device_id.get(device_id)

    def of_uid(self, uid: int) -> Peripheral:
        """The type of the Smart Device of a UID.

        Raises:
            DeviceError: No peripheral of the catalog has the UID's device id.
        """
        peripheral = self._by_device_id.get(uid >> 72)
        if peripheral is None:
            raise DeviceError(
                f"no peripheral of {self.source} has device id {uid >> 72}", uid=str(uid)
            )
        return peripheral


def load(path: Path | None = None) -> Catalog:
    """Read a catalog file, or the one that rt carries.

    A file of one's own says what Smart Devices there are. The peripherals that are rt's own, such
    as the gamepads, come from rt where the file has none of that name; where it has, they need the
    parameters that rt uses.

    Raises:
        CatalogError: The file cannot be read or anything in it is wrong; nothing of it is used
            then.
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
    """The catalog that a TOML text describes; ``source`` names it in errors.

    Raises:
        CatalogError: Anything in it is wrong.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _SYNTAX_PLACE.match(str(error))
        line = int(match["line"]) if match and match["line"] else text.rstrip().count("\n") + 1
        reason = match["reason"] if match else str(error)
        raise CatalogError(
            f"{source}:{line}: not TOML: {reason[:1].lower()}{reason[1:]}", file=source, line=line
        ) from None
    except (ValueError, RecursionError) as error:
        reason = (
            "brackets are nested too deep"
            if isinstance(error, RecursionError)
            else "a number has too many digits"
        )
        raise CatalogError(f"{source}: not TOML that rt can read: {reason}", file=source) from None
    return from_tables(tables, source, text)


def from_tables(tables: Mapping[str, object], source: str = "catalog", text: str = "") -> Catalog:
    """The catalog that raw tables describe, in the form of catalog.toml.

    Args:
        tables: By the name of the peripheral: ``params`` (a list of ``name``, ``type`` and further
            arguments of ``Parameter``), and for a Smart Device ``device_id``, and if wanted
            ``sub_interval``, ``write_interval`` and ``heartbeat_interval`` (s).
        source: What names the catalog in errors.
        text: What the tables were read from, to tell lines.

    Raises:
        CatalogError: Anything is wrong: one line for each fault, with its place, the value and what
            is allowed; the context has ``file``, ``table`` and ``field`` of the first, and the
            sentences of all as ``faults``.

    Example:
        >>> known = from_tables({"lamp": {"device_id": 77, "params": [{"name": "lit", "type": "bool", "writeable": True}]}})
        >>> known["lamp"].param("lit").writeable
        True
        >>> from_tables({"lamp": {"device_id": 77, "params": [{"name": "lit", "type": "bol"}]}})
        Traceback (most recent call last):
        ...
        rt.errors.CatalogError: catalog: [lamp] params[0] 'lit' type: 'bol' is not a type: did you mean 'bool'?
    """
    peripherals, problems = check.check(tables)
    _refuse(problems, source, text)
    return Catalog(peripherals, source)


def builtin_path() -> Path:
    """The catalog that comes with rt: beside the package when installed, at the top of a source tree."""
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
        line = line_of(text, problem.table, problem.param)
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
        if not stat.S_ISREG(
            mode
        ):  # a FIFO would never end, and a directory has a clearer sentence than the kernel's
            what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise CatalogError(f"{path}: the catalog cannot be read: it is {what}", file=str(path))
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CatalogError(
            f"{path}: the catalog cannot be read: {reason}", file=str(path)
        ) from error
    if len(data) > MAX_FILE_SIZE:
        raise CatalogError(
            f"{path}: it has more than {MAX_FILE_SIZE} bytes and is no catalog", file=str(path)
        )
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CatalogError(f"{path}:{line}: not UTF-8 text", file=str(path), line=line) from None
