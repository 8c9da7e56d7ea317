"""Checks of reads and writes against the catalog and ``dev_name``, and of gamepads.

The messages are the same as those at run time.
"""

import ast
from collections.abc import Iterator
from typing import Any

from rt.catalog import Parameter, Peripheral
from rt.catalog.device_names import resolve_uid
from rt.errors import DeviceError
from rt.lint.api import Call
from rt.lint.check import CheckContext, Finding, check
from rt.lint.module import UNKNOWN
from rt.protocol.datagrams import GAMEPADS
from rt.text import nearest

_HUGE = 1 << 70


@check("RT201", "unknown-device", "error")
def unknown_device(context: CheckContext) -> Iterator[Finding]:
    """A device name is not in dev_name, or a UID has no type in the catalog."""
    for call in _calls_on(context, "Robot"):
        found = _peripheral(context, call)
        if isinstance(found, str):
            yield call.arguments["device"], found


@check("RT202", "unknown-parameter", "error")
def unknown_parameter(context: CheckContext) -> Iterator[Finding]:
    """A device has no parameter of that name; if the device is uncertain, no device has one."""
    for call in _calls_on(context, "Robot"):
        name = context.text(call.scope, call.arguments.get("param"))
        if name is None:
            continue
        peripheral = _peripheral(context, call)
        if isinstance(peripheral, Peripheral):
            try:
                peripheral.param(name)
            except DeviceError as error:
                yield call.arguments["param"], error.message
        elif peripheral is None:
            devices = [each for each in context.catalog.values() if each.device_id is not None]
            known = {param.name for each in devices for param in each.params}
            if name not in known:
                message = f"no device has a parameter {name!r}{nearest(name, known)}"
                yield call.arguments["param"], message


@check("RT203", "read-only-parameter", "error")
def read_only_parameter(context: CheckContext) -> Iterator[Finding]:
    """A read-only parameter is written."""
    for call, param in _params(context, "write"):
        if not param.writeable:
            yield call.arguments["param"], f"{param.name} cannot be written, only read"


@check("RT204", "write-only-parameter", "error")
def write_only_parameter(context: CheckContext) -> Iterator[Finding]:
    """A write-only parameter is read."""
    for call, param in _params(context, "get"):
        if not param.readable:
            yield call.arguments["param"], f"{param.name} cannot be read, only written"


@check("RT205", "wrong-value-type", "error")
def wrong_value_type(context: CheckContext) -> Iterator[Finding]:
    """A value has the wrong type for its parameter."""
    for call, param, value in _values(context):
        if _checked(param, value) is UNKNOWN:
            yield call.arguments["value"], f"{param.name} takes {_type(param)}, not {_short(value)}"


@check("RT206", "value-out-of-range", "warning")
def value_out_of_range(context: CheckContext) -> Iterator[Finding]:
    """A number is beyond its parameter's limits and would be clamped."""
    for call, param, value in _values(context):
        written = _checked(param, value)
        if param.is_simple and written is not UNKNOWN and written != value:
            message = (
                f"{param.name} {_range(param)}: {_short(value)} is written as {_short(written)}"
            )
            yield call.arguments["value"], message


@check("RT207", "unknown-gamepad-parameter", "error")
def unknown_gamepad_parameter(context: CheckContext) -> Iterator[Finding]:
    """A gamepad has no axis or button of that name."""
    for call in _calls_on(context, "Gamepad"):
        name = context.text(call.scope, call.arguments.get("param"))
        if name is not None:
            try:
                context.catalog["gamepad"].param(name)
            except DeviceError as error:
                yield call.arguments["param"], error.message


@check("RT208", "unknown-gamepad", "error")
def unknown_gamepad(context: CheckContext) -> Iterator[Finding]:
    """A gamepad number does not exist."""
    for call in _calls_on(context, "Gamepad"):
        value = context.constant(call.scope, call.arguments.get("gamepad"))
        if value is not UNKNOWN and not (isinstance(value, int) and 0 <= value < GAMEPADS):
            message = f"gamepad numbers are 0 to {GAMEPADS - 1}, not {_short(value)}"
            yield call.arguments["gamepad"], message


@check("RT209", "gamepad-read-once", "warning")
def gamepad_read_once(context: CheckContext) -> Iterator[Finding]:
    """A gamepad is read outside of all functions: only once, before the robot is driven."""
    for call in _calls_on(context, "Gamepad"):
        if call.scope is context.module.scope:
            yield (
                call.node,
                "this reads the gamepad only once, before teleop begins: read it in teleop_main",
            )


def _calls_on(context: CheckContext, owner: str) -> Iterator[Call]:
    return (call for call in context.calls if call.owner == owner and call.name in {"get", "write"})


def _peripheral(context: CheckContext, call: Call) -> Peripheral | str | None:
    """Return the type of a call's device, the error in it, or None if it is not certain."""
    value = context.constant(call.scope, call.arguments.get("device"))
    if value is UNKNOWN:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return f"name a device by its name or its UID, not {_short(value)}"
    try:
        uid = resolve_uid(value, context.names) if isinstance(value, str) else value
        return context.catalog.of_uid(uid)
    except DeviceError as error:
        return error.message
    except (ValueError, OverflowError):  # a number with too many digits to print
        return "a UID is a number below 2**88"


def _params(context: CheckContext, method: str) -> Iterator[tuple[Call, Parameter]]:
    """Yield the calls of a method for a certain parameter."""
    for call in _calls_on(context, "Robot"):
        peripheral = _peripheral(context, call) if call.name == method else None
        if isinstance(peripheral, Peripheral):
            name = context.text(call.scope, call.arguments.get("param"))
            yield from ((call, param) for param in peripheral.params if param.name == name)


def _values(context: CheckContext) -> Iterator[tuple[Call, Parameter, Any]]:
    """Yield the writes of a certain value to a writeable parameter."""
    for call, param in _params(context, "write"):
        value = context.constant(call.scope, call.arguments.get("value"))
        if (
            isinstance(call.arguments.get("value"), ast.List | ast.Tuple | ast.Dict | ast.Set)
            and param.is_simple
        ):
            value = []
        if param.writeable and value is not UNKNOWN:
            yield call, param, value


def _checked(param: Parameter, value: Any) -> Any:
    """Return what would be written, or ``UNKNOWN`` if that is an error."""
    if not param.is_simple:
        return UNKNOWN
    try:
        return param.checked(value)
    except (TypeError, ValueError, OverflowError):
        return UNKNOWN


def _type(param: Parameter) -> str:
    if not param.is_simple:
        return "a list"
    if param.default is False:
        return "True or False"
    return "a number" if param.is_real else "a whole number"


def _range(param: Parameter) -> str:
    least, most = (param.checked(number) for number in (-_HUGE, _HUGE))
    if abs(most) >= _HUGE:
        return f"is at least {_short(least)}"
    return (
        f"is at most {_short(most)}"
        if abs(least) >= _HUGE
        else f"ranges from {_short(least)} to {_short(most)}"
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "a collection"
    if isinstance(value, int) and abs(value) >= _HUGE:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
