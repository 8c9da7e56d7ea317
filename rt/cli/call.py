"""`rt call METHOD [ARGS]`: one remote call; the service is found by the method's name."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from rt.cli import link
from rt.cli.away import Away, away_options
from rt.cli.options import click_options
from rt.config import Loaded, nearest
from rt.errors import RemoteCallError

HELP = """\
Call a method of the running robot and print its result as JSON.

ARGS are JSON values; what is no JSON, or where a method takes text and no number, is taken as text. METHOD may carry its service, as in device-service.ping.

\b
rt call                    lists the methods
rt call teleop
rt call ping left_motor
rt call read left_motor '["duty_cycle"]'
"""

_ESTOP_TIMEOUT = 2.0
_ESTOPPED = "emergency stop: the robot has ended; start it again with rt run"


@click.command(help=HELP, context_settings={"ignore_unknown_options": True})
@click.argument("method", default="")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--service", metavar="NAME", help="Service to call, when several have a method of that name.")
@click.option(
    "--timeout", type=float, default=10.0, show_default=True, metavar="SECONDS", help="Time to wait for the answer."
)
@click.option("--list", "listing", is_flag=True, help="List the methods of all services, as without METHOD.")
@away_options
@click_options("instance")
def command(  # noqa: PLR0917 - click passes them by name
    loaded: Loaded,
    away: Away | None,
    method: str,
    args: tuple[str, ...],
    service: str | None,
    timeout: float,
    listing: bool,
) -> None:
    """Call a method of the running robot and print its result as JSON."""
    name, _, short = method.rpartition(".")
    wanted = service or name or None

    async def call(robot: link.Link) -> Any:
        services = await robot.describe()
        address = _find(services, short, wanted)
        values = _values(services[address][short], args)
        if short == "estop":
            return await _estop(robot, address, values)
        return await robot.client.issue_call(short, *values, address=address, timeout=timeout)

    if listing or not method:
        link.run(loaded.config, _list, away=away)
        return
    result = link.run(loaded.config, call, away=away)
    if result is not None:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
    elif short == "estop":
        click.echo(_ESTOPPED)
    elif sys.stdout.isatty():
        click.echo("ok")


async def _list(robot: link.Link) -> None:
    for service, methods in (await robot.describe()).items():
        click.echo(service)
        for name, info in methods.items():
            doc = info["doc"].strip().partition("\n")[0]
            arguments = " ".join(_metavar(argument) for argument in info["arguments"])
            click.echo(f"  {f'{name} {arguments}'.rstrip():<28}  {doc}".rstrip())


def _metavar(argument: dict[str, Any]) -> str:
    name = argument["name"].upper()
    return name if argument["required"] else f"[{name}]"


async def _estop(robot: link.Link, address: str, values: list[Any]) -> None:
    """Call the emergency stop; that the robot has ended is an answer too."""
    try:
        await robot.client.issue_call("estop", *values, address=address, timeout=_ESTOP_TIMEOUT)
    except RemoteCallError:
        if not await robot.ended(_ESTOP_TIMEOUT):
            raise


def _find(services: dict[str, dict[str, Any]], method: str, service: str | None) -> str:
    if service is not None and not service.endswith("-service"):
        service = f"{service}-service"
    if service is not None and service not in services:
        raise RemoteCallError(f"no service {service!r} answers; there are {', '.join(services) or 'none'}")
    having = [name for name, methods in services.items() if service in {None, name} and method in methods]
    if len(having) == 1:
        return having[0]
    if having:
        raise RemoteCallError(f"{' and '.join(having)} have a method {method!r}: choose one with --service")
    silent = [name for name in link.SERVICES if name not in services]
    known = {name for entries in services.values() for name in entries}
    note = f" ({', '.join(silent)} did not answer)" if silent else ""
    raise RemoteCallError(f"no service has a method {method!r}{nearest(method, known)}{note}")


def _values(method: dict[str, Any], texts: Sequence[str]) -> list[Any]:
    """The arguments as the method takes them: what may be a text and no number stays text."""
    arguments = method.get("arguments", [])
    schemas = [argument["schema"] for argument in arguments] + [None] * len(texts)
    return [
        text
        if schema and _allows(schema, "string") and _is_number(text) and not _takes_number(schema)
        else _value(text)
        for text, schema in zip(texts, schemas, strict=False)
    ]


def _takes_number(schema: dict[str, Any]) -> bool:
    return _allows(schema, "integer") or _allows(schema, "number")


def _allows(schema: dict[str, Any], kind: str) -> bool:
    named = schema.get("type")
    if named == kind or (isinstance(named, list) and kind in named):
        return True
    return any(_allows(each, kind) for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ())))


def _is_number(text: str) -> bool:
    return type(_value(text)) in {int, float} or text.lstrip("-").isdecimal()


def _value(text: str) -> Any:
    # A UID is a text of digits on the wire: numbers beyond what MessagePack carries stay text.
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return text if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64 else value
