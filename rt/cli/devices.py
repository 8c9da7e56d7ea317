"""`rt devices`: the devices of the running robot and their values."""

import json
from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from rt.cli import link, table
from rt.cli.options import click_options
from rt.config import Config, Loaded
from rt.errors import InstanceAbsentError, RemoteCallError
from rt.instance import Instance

REFRESH_INTERVAL = 0.1
ASK_TIMEOUT = 2.0

HELP = """\
Show the Smart Devices of the running robot and their values.

A device without a name is shown with its UID, which is what rt.toml names it by. What came by on each line is counted:

\b
received   frames from the device
bad        of these, frames that could not be read
written    writes that were sent to the device
dropped    writes that were not sent, as no mode was running or newer values had come
"""


@click.command(help=HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list and end.")
@click.option("--watch/--once", default=None, help="Go on until Ctrl-C, or print once. [watch on a terminal]")
@click_options("instance", "dev_name", "dev_catalog")
def command(loaded: Loaded, as_json: bool, watch: bool | None) -> None:
    """Show the Smart Devices of the running robot and their values."""
    from rich.console import Console

    console = Console()
    live = not as_json and (console.is_terminal if watch is None else watch)

    async def show(robot: link.Link) -> None:
        robot.app.config = await _of_robot(robot, loaded.config)
        names = {uid: name for name, uid in robot.app.names.items()}
        store = robot.app.make_buffer_manager(lock_timeout=0.01)

        def draw() -> Any:
            return table.device_table(table.device_rows(store, names), names=names, width=console.width)

        if as_json:
            click.echo(json.dumps(table.device_rows(store, names), indent=2))
        elif not live:
            console.print(draw())
        else:
            await _watch(console, robot, draw)

    try:
        link.run(loaded.config, show)
    except KeyboardInterrupt:
        return


async def _of_robot(robot: link.Link, config: Config) -> Config:
    """The names and the catalog that the robot itself goes by, so that they are right in any directory."""
    try:
        options = await robot.client.issue_call("get_option", address="broker-service", timeout=ASK_TIMEOUT)
        changes = {"dev_name": dict(options["dev_name"]), "dev_catalog": _from_there(robot, options["dev_catalog"])}
    except (RemoteCallError, KeyError, TypeError):
        return config
    return msgspec.structs.replace(config, **changes)


def _from_there(robot: link.Link, catalog: str) -> str:
    """A path as the robot means it: a relative one from the robot's working directory."""
    holder: Any = robot.instance.holder() if catalog else None
    return catalog if holder is None else str(Path(f"/proc/{holder.pid}/cwd") / catalog)


async def _watch(console: Any, robot: link.Link, draw: Any) -> None:
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as screen:
        while True:
            _require(robot.instance)
            screen.update(draw(), refresh=True)
            await trio.sleep(REFRESH_INTERVAL)


def _require(instance: Instance) -> None:
    try:
        instance.require()
    except InstanceAbsentError:
        raise InstanceAbsentError(f"the robot {instance.name!r} has ended") from None
