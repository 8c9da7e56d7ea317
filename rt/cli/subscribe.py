"""The `rt subscribe UID [PARAM...]` command: the values of a device as they arrive.

Invariant: however the command ends, the device gets its previous subscription back, because the
robot depends on it. The device process restores it when the session ends, also if the command is
killed.
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
from rt.client.device_table import format_value
from rt.client.option_flags import click_options, json_option
from rt.config import Loaded
from rt.errors import DeviceError, RuntimeBaseException
from rt.process.signals import run_until_signal
from rt.protocol.message import INTERVAL_MAX
from rt.terminal.number import Number
from rt.terminal.output import Output

CHECK_INTERVAL = 1.0
"""Time without a value after which the command checks that the robot still runs (s)."""
SUBSCRIBE_TIMEOUT = 3.0
"""Time limit for the device to grant a subscription (s)."""

HELP = f"""\
Subscribe to parameters of a device and print their values as they arrive, one line each, until
Ctrl-C. The default is the catalog's subscription. At the end the device gets its previous
subscription back.

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
    help="Interval between reports, 0.04 to 0.25. [the catalog's]",
)
@click.option(
    "--count", type=Number(1, whole=True), metavar="NUMBER", help="Exit after this number of lines."
)
@json_option("Print each line as a JSON object.")
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

        assert robot.app.wakeups is not None, "a session has wakeups"
        session_id = robot.app.make_lease_table().session_id(robot.app.wakeups.slot)

        async def watch() -> None:
            try:
                await _subscribe(devices, device, names, interval, session_id)
                await _print(devices, device, count, as_json=as_json)
            finally:
                # The end of the session does the same, but only after the command has ended.
                with trio.CancelScope(shield=True), contextlib.suppress(RuntimeBaseException):
                    await devices.call(
                        "unsubscribe", str(device.uid), session_id, timeout=ASK_TIMEOUT
                    )

        await run_until_signal(watch)

    connection.run(loaded.config, show, access=connection.Access.SESSION)


async def _print(devices: Devices, device: Device, count: int | None, *, as_json: bool) -> None:
    """Print each set of values that arrives, ``count`` times or until cancelled."""
    output = Output()
    names = device.buffer.subscription
    printed = 0
    while count is None or printed < count:
        with trio.move_on_after(CHECK_INTERVAL) as look:
            changed = await device.buffer.changed(*names)
        if look.cancelled_caught:
            devices.require()  # a killed robot signals no change
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
    """Subscribe for the time of a session, and print the interval if the device changed it.

    Without parameters or without an interval (s), those of the catalog count.

    Raises:
        DeviceError: The device grants no subscription.
        RemoteCallError: The device or its process does not answer.
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
