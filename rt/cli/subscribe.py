"""`rt subscribe UID [PARAM...]`: print the values of a device as they arrive.

The rule of this module: however it ends, the device's former subscription counts again, since a
robot goes by it. The device process sees to that, as it knows when a visit is over; a command that
was killed could not.
"""

import contextlib
import json
import time
from collections.abc import Sequence
from typing import Any

import click
import trio

from rt.client import completers, connection
from rt.client.device import ASK_TIMEOUT, UID_HELP, Device, Devices
from rt.client.options import click_options
from rt.config import Loaded
from rt.errors import DeviceError, RuntimeBaseException
from rt.protocol.message import INTERVAL_MAX
from rt.terminal.number import Number
from rt.terminal.output import Output
from rt.terminal.signals import run_until_signal
from rt.terminal.table import format_value

CHECK_INTERVAL = 1.0
"""Time without a value after which it is verified that the robot still runs (s)."""
SUBSCRIBE_TIMEOUT = 3.0
"""How long the device may take to grant a subscription (s)."""

HELP = f"""\
Subscribe to parameters of a device and print what arrives, a line each time, until Ctrl-C. Without
PARAM they are those that the catalog subscribes to. In the end the device is given back the
subscription that it had before.

{UID_HELP}

\b
rt subscribe left_motor
rt subscribe left_motor enc_pos enc_vel --interval 0.1
rt subscribe bumper --json --count 10
"""


@click.command(help=HELP)
@click.argument("uid", shell_complete=completers.devices)
@click.argument("params", nargs=-1, metavar="[PARAM]...", shell_complete=completers.readable)
@click.option(
    "--interval",
    type=Number(above=0, most=INTERVAL_MAX / 1000),
    metavar="SECONDS",
    help="Time between two reports, 0.04 to 0.25. [the catalog's]",
)
@click.option(
    "--count", type=Number(1, whole=True), metavar="NUMBER", help="End after so many lines."
)
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON object.")
@click_options("instance")
def command(  # noqa: PLR0917 - click passes them by name
    loaded: Loaded,
    uid: str,
    params: tuple[str, ...],
    interval: float | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Print the values of a device as they arrive."""

    async def show(robot: connection.Connection) -> None:
        devices = await Devices.of(robot)
        device = await devices.find_one(uid)
        names = device.readable(params) if params else None

        assert robot.app.wakeups is not None, "a visitor has bells"
        session_id = robot.app.make_lease_table().session_id(robot.app.wakeups.slot)

        async def watch() -> None:
            try:
                await _subscribe(devices, device, names, interval, session_id)
                await _print(devices, device, count, as_json=as_json)
            finally:
                # It would be so without this, but whoever looks after the end of the command should
                # find it done.
                with trio.CancelScope(shield=True), contextlib.suppress(RuntimeBaseException):
                    await devices.call(
                        "unsubscribe", str(device.uid), session_id, timeout=ASK_TIMEOUT
                    )

        await run_until_signal(watch)

    connection.run(loaded.config, show, access=connection.Access.SESSION)


async def _print(devices: Devices, device: Device, count: int | None, *, as_json: bool) -> None:
    """Print each set of values that arrives; returns after so many, if a count is given."""
    output = Output()
    names = device.buffer.subscription
    printed = 0
    while count is None or printed < count:
        with trio.move_on_after(CHECK_INTERVAL) as look:
            changed = await device.buffer.changed(*names)
        if look.cancelled_caught:
            devices.require()  # a robot that was killed says nothing
            continue
        if not changed:
            device.raise_disconnected()
        values = await device.wait_for_values([name for name in names if name in changed])
        await output.line(json.dumps(device.row(values)) if as_json else _line(device, values))
        printed += 1


def _line(device: Device, values: dict[str, Any]) -> str:
    stamp = device.buffer.last_update
    clock = f"{time.strftime('%H:%M:%S', time.localtime(stamp))}.{int(stamp % 1 * 1000):03}"
    return "  ".join(
        [clock, *(f"{name} {format_value(value)}" for name, value in values.items())]
    ).rstrip()


async def _subscribe(
    devices: Devices,
    device: Device,
    params: Sequence[str] | None,
    interval: float | None,
    session_id: int,
) -> None:
    """Ask for reports as long as a visit lasts; what the device makes of the interval is told.

    Args:
        devices: The way to the device.
        device: Which one.
        params: Names of parameters; those of the catalog if None.
        interval: Time between two reports (s); the catalog's if None.
        session_id: The session that holds the subscription.

    Raises:
        DeviceError: It grants none.
        RemoteCallError: It does not answer.
    """
    await devices.call(
        "subscribe", str(device.uid), params, interval, session_id, timeout=SUBSCRIBE_TIMEOUT
    )
    granted = device.buffer.interval
    if not granted or not device.buffer.subscription:
        raise DeviceError(f"{device.name} grants no subscription", uid=str(device.uid))
    if interval is not None and round(interval * 1000) != round(granted * 1000):
        click.echo(
            f"rt: {device.name} reports every {granted:g} s instead of {interval:g} s", err=True
        )
