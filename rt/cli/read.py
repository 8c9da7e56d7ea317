"""The `rt read UID [PARAM...]` command: fresh values of a device."""

import json
from typing import Any

import click
import trio

from rt.client import completers, connection
from rt.client.device import UID_HELP, Device, Devices
from rt.client.option_flags import click_options, json_option, timeout_option
from rt.config import Loaded
from rt.errors import DeviceError
from rt.terminal.output import as_text

HELP = f"""\
Request the values of parameters from a device and print them. The default is all readable
parameters.

{UID_HELP}

\b
rt read left_motor
rt read left_motor duty_cycle enc_pos
rt read left_motor enc_pos --json | jq .values.enc_pos
"""


@click.command(help=HELP)
@click.argument("uid", shell_complete=completers.devices)
@click.argument("params", nargs=-1, metavar="[PARAM]...", shell_complete=completers.readable)
@json_option("Print a JSON object.")
@timeout_option(1.0, "Time to wait for the values.")
@click_options("instance")
def command(
    loaded: Loaded, uid: str, params: tuple[str, ...], as_json: bool, timeout: float
) -> None:
    """Request values from a device and print them."""

    async def show(robot: connection.Connection) -> None:
        devices = await Devices.of(robot)
        device = await devices.find_one(uid)
        names = device.readable(params)
        values = await _ask(devices, device, names, timeout)
        if as_json:
            click.echo(json.dumps(device.row(values)))
        else:
            width = max(map(len, names))
            for name, value in values.items():
                click.echo(f"{name:<{width}}  {_format(value)}")

    connection.run(loaded.config, show, access=connection.Access.SESSION)


def _format(value: Any) -> str:
    """Return a value as text, with 3 decimals unless that turns a number other than 0 into 0."""
    text = f"{value:.3f}" if isinstance(value, float) else ""
    return text if text and (value == 0 or float(text) != 0) else as_text(value)


async def _ask(
    devices: Devices,
    device: Device,
    names: list[str],
    timeout: float,  # noqa: ASYNC109 - the value of a flag
) -> dict[str, Any]:
    """Return values that were received after the request.

    Raises:
        DeviceError: A value was not received in time, or the device disconnected.
        RemoteCallError: The device service refused the request.
    """
    buffer = device.buffer
    before = buffer.received
    missing = names
    with trio.move_on_after(timeout):
        await devices.call("read", str(device.uid), names, timeout=timeout)
        while missing := [name for name in names if buffer.received[name] == before[name]]:
            if not await buffer.changed(*missing):
                device.raise_disconnected()
        return await device.wait_for_values(names)
    which = "its values" if len(missing) == len(names) else ", ".join(missing)
    raise DeviceError(
        f"{device.name} did not send {which} within {timeout:g} s", uid=str(device.uid)
    )
