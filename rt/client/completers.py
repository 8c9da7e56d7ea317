"""Shell completions of methods, devices, parameters, robots and options.

Invariant: a completer returns within `TIMEOUT`, raises nothing and prints nothing. Names that only
the robot knows are requested from it; without a running robot there are no completions.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from rt import config
from rt.errors import RuntimeBaseException

if TYPE_CHECKING:
    from rt.client.connection import Connection

TIMEOUT = 1.0
"""Time limit for the answer of the robot (s)."""

Items = list[CompletionItem[Any]]
Completer = Callable[[click.Context, click.Parameter, str], Items]


def methods(context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the methods of the running robot; with their service if INCOMPLETE has a dot."""
    from rt.client.methods import first_line

    async def ask(robot: "Connection") -> dict[str, str]:
        found: dict[str, str] = {}
        for service, entries in (await robot.describe()).items():
            short = service.removesuffix("-service")
            for name, info in entries.items():
                found[f"{short}.{name}"] = text = first_line(info)
                found.setdefault(name, text)
        return {name: text for name, text in found.items() if "." in incomplete or "." not in name}

    return _items(_ask(context, ask), incomplete)


def devices(context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the names of the connected Smart Devices, or the UIDs of those without a name."""

    async def ask(robot: "Connection") -> dict[str, str]:
        call = robot.client.issue_call
        names = {
            uid: name
            for name, uid in (
                await call("get_option", "dev_name", address="broker-service")
            ).items()
        }
        uids = await call("list_uids", address="device-service")
        return {str(names.get(uid, uid)): str(uid) if uid in names else "" for uid in uids}

    return _items(_ask(context, ask), incomplete)


def readable(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Return the readable parameters of the given device that are not yet in the command line."""
    named = context.params.get(parameter.name or "") or ()
    found = _ask(context, lambda robot: _params(robot, context, "{}", "readable"))
    return [item for item in _items(found, incomplete) if item.value not in named]


def writeable(context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the writeable parameters of the given device, as ``NAME=``."""
    return _items(
        _ask(context, lambda robot: _params(robot, context, "{}=", "writeable")), incomplete
    )


async def _params(
    robot: "Connection", context: click.Context, form: str, access: str
) -> dict[str, str]:
    from rt.catalog.device_names import resolve_uid
    from rt.client.device import robot_catalog

    known, names = await robot_catalog(robot)
    peripheral = known.of_uid(resolve_uid(context.params["uid"], names))
    return {form.format(param.name): "" for param in peripheral.params if getattr(param, access)}


def instances(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the robots that run on this machine."""
    from rt.instance import running

    return _items(dict.fromkeys(running(), ""), incomplete)


def device_types(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the Smart Device types of the catalog and the names of dev_name."""
    with contextlib.suppress(RuntimeBaseException):
        from rt.client.option_flags import catalog_and_names

        known, names = catalog_and_names(config.load().config)
        types = [name for name, each in known.items() if each.device_id is not None]
        return _items(dict.fromkeys([*names, *types], ""), incomplete)
    return []


def options(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the names of the options."""
    return _items({option.name: option.meaning for option in config.OPTIONS.values()}, incomplete)


def choices(option: config.Option) -> "Completer | None":
    """Return the completer of an option's values, or None if they are not limited."""
    if option.name == "instance":
        return instances
    if not option.choices:
        return None
    return lambda _context, _parameter, incomplete: _items(
        dict.fromkeys(option.choices, ""), incomplete
    )


def values(context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the values of the given option if it is a switch or a choice."""
    option = config.OPTIONS.get(context.params.get("name") or "")
    words = option.choices if option else ()
    if option and option.kind == "switch":
        words = ("true", "false")
    return _items(dict.fromkeys(words, ""), incomplete)


def checks(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the checks of `rt doctor`."""
    from rt import doctor

    return _items({each.id: each.meaning for each in doctor.checks().values()}, incomplete)


def _items(found: dict[str, str], incomplete: str) -> Items:
    return [
        CompletionItem(name, help=text or None)
        for name, text in found.items()
        if name.startswith(incomplete)
    ]


def _ask(
    context: click.Context, function: Callable[["Connection"], Awaitable[dict[str, str]]]
) -> dict[str, str]:
    """Return what a function gets from the robot, or nothing without an answer in time."""
    from rt.instance import Instance

    with contextlib.suppress(Exception):
        given: Iterable[Any] = (
            context.params.get("instance"),
            context.find_root().params.get("instance"),
        )
        name = next(filter(None, given), os.environ.get("RT_INSTANCE") or "default")
        if Instance.locate(name).holder() is None:
            return {}
        import trio

        from rt import log
        from rt.client.connection import open_local

        log.configure(level="critical", fmt="pretty")
        loaded = config.load(flags={"instance": name}, env={}, cwd=Path(os.devnull))

        async def main() -> dict[str, str]:
            with trio.move_on_after(TIMEOUT):
                async with open_local(loaded.config) as robot:
                    return await function(robot)
            return {}

        return trio.run(main)
    return {}
