"""The `rt devices` command: the devices of the running robot and their values."""

import contextlib
import json
from typing import TYPE_CHECKING, Any

import click
import trio

from rt.catalog.device_names import RESTART_HINT, not_connected
from rt.client import completers, connection, device_table
from rt.client.device import Devices
from rt.client.option_flags import click_options, json_option
from rt.config import Loaded
from rt.errors import RemoteCallError
from rt.process.signals import run_until_signal
from rt.terminal.console import console
from rt.terminal.output import jsonable

if TYPE_CHECKING:
    from rich.console import Console

REFRESH_INTERVAL = 0.1
"""Interval between updates of the table on a terminal (s)."""
PRINT_INTERVAL = 1.0
"""Interval between two tables in a file or pipe (s)."""

HELP = """\
Show the Smart Devices of the running robot and their values.

UID is a name, a UID or a type; the default is all devices. A device without a name is shown with
its UID, which gives it a name in rt.toml. --json adds the port of each device, how often each
parameter was received and sent, the age of the values, and the subscription. The counters are:

\b
received   frames from the device
bad        received frames that were invalid
written    writes that were sent to the device
dropped    writes that were not sent, because no mode ran or newer values replaced them

\b
rt devices
rt devices left_motor right_motor --watch
rt devices left_motor --json | jq '.[0].values'
"""


@click.command(help=HELP)
@click.argument("wanted", nargs=-1, metavar="[UID]...", shell_complete=completers.devices)
@json_option("Print a JSON list and exit.")
@click.option(
    "--watch/--once",
    default=None,
    help="Update the table until Ctrl-C, or print it once. [watch on a terminal]",
)
@click_options("instance", "dev_name", "dev_catalog")
def command(loaded: Loaded, wanted: tuple[str, ...], as_json: bool, watch: bool | None) -> None:
    """Show the Smart Devices of the running robot and their values."""
    screen = console()
    live = not as_json and (screen.is_terminal if watch is None else watch)

    async def show(robot: connection.Connection) -> None:
        devices = await Devices.of(robot)
        names = {uid: name for name, uid in devices.names.items()}
        chosen: dict[int, str] = {}
        for text in wanted:
            of_type = devices.of_type(text, devices.store.devices())
            chosen |= (
                {devices.resolve(text): text}
                if of_type is None
                else {uid: str(uid) for uid in of_type}
            )
        expected = {uid: names.get(uid, text) for uid, text in chosen.items()} if chosen else names

        def rows() -> list[dict[str, Any]]:
            return device_table.device_rows(devices.store, names, chosen)

        def draw() -> Any:
            note = RESTART_HINT if devices.is_outdated else ""
            return device_table.device_table(rows(), names=expected, width=screen.width, note=note)

        if as_json:
            ports = await _ports(devices)
            shown = [
                row | {"port": ports.get(row["uid"]), "values": jsonable(row["values"])}
                for row in rows()
            ]
            click.echo(json.dumps(shown, indent=2))
        elif not live:
            screen.print(draw())
            connected = [
                int(row["uid"])
                for row in device_table.device_rows(devices.store, names)
                if row["connected"]
            ]
            for uid in chosen:
                if uid not in connected:
                    raise not_connected(uid, devices.names, connected)
        else:
            await run_until_signal(lambda: _watch(screen, devices, draw))

    connection.run(loaded.config, show, access=connection.Access.BUFFERS)


async def _ports(devices: Devices) -> dict[str, str]:
    """Return the ports of the connected devices by UID, or nothing without an answer."""
    with contextlib.suppress(RemoteCallError):
        return {uid: port for port, uid in (await devices.call("ports")).items() if uid is not None}
    return {}


async def _watch(screen: "Console", devices: Devices, draw: Any) -> None:
    from rich.live import Live

    if not screen.is_terminal:  # a file or pipe cannot be redrawn
        while True:
            devices.require()
            screen.print(draw())
            await trio.sleep(PRINT_INTERVAL)
    with Live(console=screen, auto_refresh=False) as view:
        while True:
            devices.require()
            view.update(draw(), refresh=True)
            await trio.sleep(REFRESH_INTERVAL)
