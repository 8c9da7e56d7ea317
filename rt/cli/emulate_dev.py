"""`rt emulate-dev`: Smart Devices that are not there."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
import trio

from rt import catalog, log
from rt.cli.options import click_options
from rt.config import Loaded, nearest
from rt.errors import DeviceError
from rt.instance import Instance

if TYPE_CHECKING:
    from rt.smartdevice.emulator import EmulatedDevice

HELP = """\
Emulate Smart Devices that connect to a robot over TCP until Ctrl-C.

UID is a number, or NAME or NAME@N for a device of the catalog; JSON holds values to start with.

\b
rt emulate-dev polar-bear@1 polar-bear@2 'limit-switch:{"switch0": true}'
"""


@click.command(help=HELP)
@click.argument("devices", nargs=-1, required=True, metavar="UID[:JSON]...")
@click_options("instance", "port_base", "bind", "dev_vsd_addr", "dev_catalog", "log_level")
def command(loaded: Loaded, devices: tuple[str, ...]) -> None:
    """Emulate Smart Devices that connect to a robot over TCP until Ctrl-C."""
    from rt.smartdevice.emulator import EmulatedDevice, connect_emulated
    from rt.smartdevice.motion import World
    from rt.smartdevice.uid_spec import parse_uid_spec

    config = loaded.config.resolved(Instance.locate(loaded.config.instance).directory)
    known = catalog.load(Path(config.dev_catalog) if config.dev_catalog else None)
    log.configure(level=config.log_level, fmt="pretty", app="emulate-dev")
    world = World()
    emulated: list[EmulatedDevice] = []
    for spec in devices:
        try:
            uid, values = parse_uid_spec(spec, known)
        except DeviceError as error:
            near = nearest(spec.partition(":")[0].partition("@")[0], known, cutoff=0.7)
            raise DeviceError(f"{str(error).removesuffix('.')}{near}", **error.context) from None
        if any(device.uid == uid for device in emulated):
            raise DeviceError(
                f"{spec!r} is given twice: a robot knows a device by its UID, so use another NAME@N", spec=spec
            )
        emulated.append(EmulatedDevice(known.of_uid(uid), uid, values, world=world))
    address = urlsplit(config.dev_vsd_addr)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for device in emulated:
                connect = functools.partial(connect_emulated, on_connect=_reporter(device, config.dev_vsd_addr))
                nursery.start_soon(connect, device, address.hostname or "127.0.0.1", address.port or 0)
            click.echo("Ctrl-C unplugs them")

    try:
        trio.run(main)
    except KeyboardInterrupt:
        return


def _reporter(device: "EmulatedDevice", address: str) -> Callable[[bool], None]:
    """What says on stdout that a device is connected or not, each time that it changes."""
    last: bool | None = None

    def report(connected: bool) -> None:
        nonlocal last
        if connected != last:
            state = (
                "connected to" if connected else "no longer connected to" if last else "not yet connected: no robot at"
            )
            click.echo(f"{device.peripheral.name} {device.uid} {state} {address}")
        last = connected

    return report
