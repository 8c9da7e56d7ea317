"""The `rt call METHOD [ARGS]` command: one remote call to the service that has the method."""

import json
import sys
from typing import Any

import click

from rt.client import completers, connection, methods
from rt.client.option_flags import Loader, click_options, timeout_option
from rt.client.target import RemoteTarget, find_stop_target, target_options
from rt.errors import RemoteCallError

HELP = """\
Call a method of the running robot and print its result as JSON.

ARGS are JSON values. An argument that is not JSON is passed as text, and so is a number where the
method takes text. METHOD may include its service, as in device.ping.

\b
rt call --list             the methods of all services
rt call read --help        one method and its arguments, from the running robot
rt call teleop
rt call commander          which station has control; `rt call take_control` takes control
rt call ping left_motor
rt call heartbeat left_motor
"""

_STOP_METHODS = {
    "idle": "executor-service",
    "estop": "executor-service",
    "disable": "device-service",
}
"""Services of the methods that stop a robot. No lookup, because a hung process would delay it."""

_ESTOP_TIMEOUT = 2.0
_ESTOPPED = "emergency stop: the robot has ended; start it again with `rt run`"
_STARTED = {
    name: f"ok: {what} started; `rt logs --since 10s` shows the output of the code and its errors"
    for name, what in (("auto", "auto"), ("teleop", "teleop"), ("execute", "execution"))
}


@click.command(help=HELP, add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("method", default="", shell_complete=completers.methods)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--service", metavar="NAME", help="Service to call, if several have a method of that name."
)
@timeout_option(10.0, "Time to wait for the answer.")
@click.option(
    "--list",
    "listing",
    is_flag=True,
    help="List the methods of all services. This is the default without METHOD.",
)
@click.option(
    "-h", "--help", "helping", is_flag=True, help="Show this message, or the arguments of METHOD."
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
        values: list[Any] = []
        if short in _STOP_METHODS and not args and wanted in {None, _STOP_METHODS[short]}:
            address = _STOP_METHODS[short]
        else:
            services = await _describe(robot, wanted)
            address = methods.find(services, short, wanted)
            methods.require_count(short, services[address][short], len(args))
            values = methods.values(short, services[address][short], args)
        if short == "estop":
            return await _estop(robot, address, values)
        try:
            return await robot.client.issue_call(short, *values, address=address, timeout=timeout)
        except RemoteCallError as error:
            plain = methods.simplify_type_error(error.message)
            raise RemoteCallError(plain, **error.context) from error

    if helping or listing or not method:
        connection.run(loaded().config, show, remote=remote)
    else:
        config, problem = (
            find_stop_target(loaded, is_here=remote is None)
            if short in _STOP_METHODS
            else (loaded().config, "")
        )
        _print(short, connection.run(config, call, remote=remote))
        if problem:
            robot = f"robot {config.instance!r}" if remote is None else "robot"
            click.echo(f"rt: {problem}; {short} was sent to the {robot} anyway", err=True)


async def _describe(robot: connection.Connection, wanted: str | None) -> dict[str, dict[str, Any]]:
    """Return the methods of one service, or of all services that answer."""
    if wanted is None:
        return await robot.describe()
    # Unlike `describe`, this call raises the router's error if the service does not exist.
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
    """Call the emergency stop. The end of the robot counts as an answer."""
    try:
        await robot.client.issue_call("estop", *values, address=address, timeout=_ESTOP_TIMEOUT)
    except RemoteCallError:
        if not await robot.wait_until_ended(_ESTOP_TIMEOUT):
            raise
