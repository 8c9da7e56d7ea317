"""Validation of catalog tables: the rules for peripherals and parameters, and their error messages.

Invariant: any tables yield peripherals and problems, never an exception.
"""

import ctypes
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from rt.catalog.parameter import MAX_BYTES, Parameter
from rt.catalog.peripheral import DEFAULT_SUB_INTERVAL, Peripheral
from rt.catalog.problem import Problem, Report, convert, reporter
from rt.protocol.message import INTERVAL_MAX, VALUES_MAX
from rt.text import WORD_MAX, shown

MAX_DEVICE_PARAMS: Final = 16
"""The maximum number of parameters of a Smart Device, whose bitmaps have 16 bits."""
MAX_PARAMS: Final = 64
"""The maximum number of parameters of a peripheral, whose bitmaps in a buffer have 64 bits."""
MAX_NAME_LENGTH: Final = 64
MIN_INTERVAL: Final = 0.001
MAX_INTERVAL: Final = INTERVAL_MAX / 1000
"""Intervals (s) are sent as 16 bits of milliseconds; 0 would end a subscription."""

_PERIPHERAL_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PARAM_NAME = re.compile(r"[a-z][a-z0-9_]*")
_INTERVALS = ("sub_interval", "write_interval", "heartbeat_interval")


class _ParameterSpec(msgspec.Struct):
    name: str
    type: str
    id: int | None = None
    lower: int | float | None = None
    upper: int | float | None = None
    readable: bool = True
    writeable: bool = False
    subscribed: bool | None = None


class _PeripheralSpec(msgspec.Struct):
    params: list[dict[str, Any]]
    device_id: int | None = None
    sub_interval: float | None = None
    write_interval: float | None = None
    heartbeat_interval: float | None = None


def check(tables: Mapping[str, object]) -> tuple[dict[str, Peripheral], list[Problem]]:
    """Return the peripherals that tables describe, and all problems."""
    problems: list[Problem] = []
    peripherals: dict[str, Peripheral] = {}
    owners: dict[int, str] = {}
    for key, table in tables.items():
        name = str(key)
        peripheral = _peripheral(name, table, problems)
        if peripheral is None:
            continue
        device_id = peripheral.device_id
        if device_id is not None:
            owner = owners.setdefault(device_id, name)
            if owner != name:
                reporter(problems, name)(
                    "device_id", f"already used by [{owner}]; each type needs its own", device_id
                )
        peripherals[name] = peripheral
    return peripherals, problems


def check_builtin_names(
    own: Mapping[str, Peripheral], builtin: Mapping[str, Peripheral]
) -> list[Problem]:
    """Return the problems of tables that replace built-in peripherals, such as the gamepads."""
    problems: list[Problem] = []
    for name, wanted in builtin.items():
        given = own.get(name)
        if wanted.device_id is not None or given is None:
            continue
        report = reporter(problems, name)
        if given.device_id is not None:
            report(
                "device_id",
                f"{name} is built in and not a Smart Device; use another name",
                given.device_id,
            )
            continue
        kinds = {param.name: param.ctype for param in given.params}
        changed = {param.name: param.ctype for param in wanted.params}.items() ^ kinds.items()
        for param in sorted({param for param, _ in changed}):
            report(
                "params",
                f"{param!r} differs from the built-in {name}; remove the table to use that one",
            )
    return problems


def _peripheral(name: str, table: object, problems: list[Problem]) -> Peripheral | None:
    before = len(problems)
    report = reporter(problems, name)
    if not isinstance(table, Mapping):
        report("", "expected a table such as [limit-switch]", table)
        return None
    if not _PERIPHERAL_NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        report(
            "", f"a name consists of words of a-z and 0-9 joined by -, at most {MAX_NAME_LENGTH}"
        )
    spec = convert(_PeripheralSpec, table, report)
    if spec is None:
        return None
    _check_head(spec, report)
    # An excessive number of parameters is not checked one by one.
    params = _params(name, spec, problems) if len(spec.params) <= MAX_PARAMS else []
    if len(problems) > before:
        return None
    return Peripheral(
        name=name,
        device_id=spec.device_id,
        sub_interval=DEFAULT_SUB_INTERVAL if spec.sub_interval is None else spec.sub_interval,
        write_interval=spec.write_interval,
        heartbeat_interval=spec.heartbeat_interval,
        params=tuple(params),
    )


def _check_head(spec: _PeripheralSpec, report: Report) -> None:
    smart = spec.device_id is not None
    if spec.device_id is not None and not 0 <= spec.device_id <= 0xFFFF:
        report("device_id", "expected 0 to 65535 (16 bits)", spec.device_id)
    for key in _INTERVALS:
        interval = getattr(spec, key)
        if interval is None:
            continue
        if not MIN_INTERVAL <= interval <= MAX_INTERVAL:
            report(
                key,
                f"expected {MIN_INTERVAL} to {MAX_INTERVAL} s (16 bits of milliseconds)",
                interval,
            )
        elif not smart:
            report(
                key, "only Smart Devices have intervals, and this table has no device_id", interval
            )
    most, kind = (MAX_DEVICE_PARAMS, "a Smart Device") if smart else (MAX_PARAMS, "a peripheral")
    if len(spec.params) > most:
        report("params", f"too many parameters: {len(spec.params)}, and {kind} has at most {most}")


def _params(table: str, spec: _PeripheralSpec, problems: list[Problem]) -> list[Parameter]:
    params: list[Parameter] = []
    names: set[str] = set()
    ids: list[int | None] = []
    for number, raw in enumerate(spec.params):
        name = raw.get("name")
        label = name if isinstance(name, str) else None
        report = reporter(
            problems,
            table,
            f"params[{number}]" + (f" {shown(label, WORD_MAX)}" if label is not None else ""),
            label,
        )
        found = convert(_ParameterSpec, raw, report)
        if found is None:
            continue
        if found.name in names:
            report("name", "duplicate name in this table")
        names.add(found.name)
        ids.append(found.id)
        param = _param(
            found,
            number if found.id is None else found.id,
            report,
            smart=spec.device_id is not None,
        )
        if param is not None:
            params.append(param)
    if len(ids) == len(spec.params):
        _check_ids(ids, reporter(problems, table))
    if sum(param.size for param in params) > MAX_BYTES:
        reporter(problems, table)("params", f"the values take more than {MAX_BYTES} bytes in total")
    return sorted(params, key=lambda param: param.id)


def _check_ids(ids: Sequence[int | None], report: Report) -> None:
    given = [each for each in ids if each is not None]
    if not given:
        return
    if len(given) < len(ids):
        report(
            "params",
            "some have an id and some have none; give an id to all, or to none to use their order",
        )
    elif len(set(given)) < len(given):
        twice = next(each for each in given if given.count(each) > 1)
        report("params", f"duplicate id {twice}")
    elif sorted(given) != list(range(len(given))):
        gap = next(each for each in range(len(given)) if each not in given)
        report("params", f"id {gap} is missing; ids are 0 to {len(given) - 1} without gaps")


def _param(spec: _ParameterSpec, number: int, report: Report, *, smart: bool) -> Parameter | None:
    if not _PARAM_NAME.fullmatch(spec.name) or len(spec.name) > MAX_NAME_LENGTH:
        report(
            "name",
            f"a name consists of a-z, 0-9 and _, begins with a letter, at most {MAX_NAME_LENGTH}",
            spec.name,
        )
    elif keyword.iskeyword(spec.name):
        report("name", "a keyword of Python; use another name", spec.name)
    if not spec.readable and not spec.writeable:
        report("readable", "a parameter must be readable or writeable", spec.readable)
    if spec.subscribed and not spec.readable:
        report("subscribed", "only readable parameters can be subscribed to", spec.subscribed)
    try:
        ctype = Parameter.parse_ctype(spec.type)
    except ValueError as error:
        report("type", str(error))
        return None
    subscribed = spec.readable if spec.subscribed is None else spec.subscribed
    param = Parameter(
        spec.name,
        ctype,
        number,
        readable=spec.readable,
        writeable=spec.writeable,
        subscribed=subscribed,
    )
    size = param.size
    if smart and size > VALUES_MAX:
        report(
            "type",
            f"{size} bytes, but a message to a Smart Device carries at most {VALUES_MAX}",
            spec.type,
        )
    lower, upper = (_limit(param, key, getattr(spec, key), report) for key in ("lower", "upper"))
    if lower is not None and upper is not None and lower > upper:
        report("lower", f"greater than upper = {upper}", lower)
    return param._replace(
        lower=-math.inf if lower is None else lower, upper=math.inf if upper is None else upper
    )


def _limit(param: Parameter, key: str, value: float | None, report: Report) -> float | None:
    """Return a limit as a number of the parameter's type, or None if it is missing or invalid."""
    if value is None:
        return None
    if not param.is_simple or param.ctype is ctypes.c_bool:
        report(
            key,
            f"only numbers have limits, not {'a bool' if param.is_simple else 'an array'}",
            value,
        )
        return None
    if not -math.inf < value < math.inf:  # math.isfinite raises for huge integers
        report(key, "a limit must be finite; omit it for none", value)
        return None
    if not param.is_real and value != int(value):
        report(key, "the limit of an integer must be a whole number", value)
        return None
    least, most = param.type_bounds
    if not least <= value <= most:
        report(key, f"the range of the type is {least} to {most}", value)
        return None
    return float(value) if param.is_real else int(value)
