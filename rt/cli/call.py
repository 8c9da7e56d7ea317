"""`rt call METHOD [ARGS]`: one remote call; the service is found by the method's name."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from rt.client import completers, connection, methods
from rt.client.options import Loader, click_options
from rt.client.stopping import StopTarget, find_target
from rt.client.target import RemoteTarget, target_options
from rt.errors import RemoteCallError
from rt.terminal.number import Number

HELP = """\
Call a method of the running robot and print its result as JSON.

ARGS are JSON values; what is no JSON, or where a method takes text and no number, is taken as text. METHOD may carry its service, as in device.ping.

\b
rt call --list             the methods of all services
rt call read --help        one method and its arguments, from the running robot
rt call teleop
rt call commander          the station in control of the gamepads; take_control takes it over
rt call ping left_motor
rt call heartbeat left_motor
"""

_STOP_METHODS = {
    "idle": "executor-service",
    "estop": "executor-service",
    "disable": "device-service",
}
"""Methods that stop a robot, and whose they are: they are not looked for first, since a process that hangs would delay that."""

_ESTOP_TIMEOUT = 2.0
_ESTOPPED = "emergency stop: the robot has ended; start it again with rt run"
_STARTED = {
    name: f"ok: {what} has begun; `rt logs --since 10s` shows what the code says, and its errors"
    for name, what in (("auto", "auto"), ("teleop", "teleop"), ("execute", "it"))
}


@click.command(help=HELP, add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("method", default="", shell_complete=completers.methods)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--service", metavar="NAME", help="Service to call, when several have a method of that name."
)
@click.option(
    "--timeout",
    type=Number(above=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time to wait for the answer.",
)
@click.option(
    "--list", "listing", is_flag=True, help="List the methods of all services, as without METHOD."
)
@click.option(
    "-h",
    "--help",
    "helping",
    is_flag=True,
    help="Show this message, or with METHOD what that takes.",
)
@target_options
@click_options("instance", load=False)
def command(  # noqa: PLR0917 - click passes them by name
    loaded: Loader,
    remote: RemoteTarget | None,
    method: str,
    args: tuple[str, ...],
    service: str | None,
    timeout: float,
    listing: bool,
    helping: bool,
) -> None:
    """Call a method of the running robot and print its result as JSON."""
    if helping and not method:
        click.echo(click.get_current_context().get_help())
        return
    name, _, short = method.rpartition(".")
    wanted = methods.service_name(service or name) if service or name else None

    async def show(robot: connection.Connection) -> None:
        services = await _describe(robot, wanted)
        if helping:
            address = methods.find(services, short, wanted)
            lines = methods.explain(address, short, services[address][short])
        else:
            lines = methods.listing(services)
        click.echo("\n".join(lines))

    async def call(robot: connection.Connection) -> Any:
        if short in _STOP_METHODS and not args and wanted in {None, _STOP_METHODS[short]}:
            address = _STOP_METHODS[short]
            if short == "estop":
                return await _estop(robot, address, [])
            return await robot.client.issue_call(short, address=address, timeout=timeout)
        services = await _describe(robot, wanted)
        address = methods.find(services, short, wanted)
        methods.require_count(short, services[address][short], len(args))
        values = methods.values(short, services[address][short], args)
        if short == "estop":
            return await _estop(robot, address, values)
        with _simplified_errors():
            return await robot.client.issue_call(short, *values, address=address, timeout=timeout)

    if helping or listing or not method:
        connection.run(loaded().config, show, remote=remote)
    else:
        target = (
            find_target(loaded, is_here=remote is None)
            if short in _STOP_METHODS
            else StopTarget(loaded().config)
        )
        _print(short, connection.run(target.config, call, remote=remote))
        if target.problem:
            robot = f"robot {target.config.instance!r}" if remote is None else "robot"
            click.echo(
                f"rt: {target.problem}; {short} was sent to the {robot} all the same", err=True
            )


@contextlib.contextmanager
def _simplified_errors() -> Iterator[None]:
    """Have an error of a service told in plain words."""
    try:
        yield
    except RemoteCallError as error:
        raise RemoteCallError(
            methods.simplify_type_error(error.message), **error.context
        ) from error


async def _describe(robot: connection.Connection, wanted: str | None) -> dict[str, dict[str, Any]]:
    """The methods of one service, or of all that answer."""
    if wanted is None:
        return await robot.describe()
    # That it is not there is said at once, and by the one who knows which are: the router.
    return {
        wanted: await robot.client.issue_call(
            "describe", address=wanted, timeout=connection.DESCRIBE_TIMEOUT
        )
    }


def _print(method: str, result: Any) -> None:
    if result is not None:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
    elif method == "estop":
        click.echo(_ESTOPPED)
    elif sys.stdout.isatty():
        click.echo(_STARTED.get(method, "ok"))


async def _estop(robot: connection.Connection, address: str, values: list[Any]) -> None:
    """Call the emergency stop; that the robot has ended is an answer too."""
    try:
        await robot.client.issue_call("estop", *values, address=address, timeout=_ESTOP_TIMEOUT)
    except RemoteCallError:
        if not await robot.wait_until_ended(_ESTOP_TIMEOUT):
            raise
