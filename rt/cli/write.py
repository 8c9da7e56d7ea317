"""The `rt write UID PARAM=VALUE...` command: drive a device until the command ends.

Invariant: the command's writes reach the device only under the command's own lease. The lease ends
with the command, however it ends, and then the device process disables the device. A device that
disconnects is not driven again when it returns.

A device has one writer at a time, because a motor with two jerks: the command is refused while a
mode runs, and ends when one starts. A second `rt write` for the same device is refused.
"""

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import trio

from rt.buffer import Lease
from rt.buffer.lease import TIMEOUT, Bar
from rt.buffer.write_event import WriteEvent
from rt.catalog import unknown_parameter
from rt.client import completers, connection
from rt.client.device import UID_HELP, Device, Devices
from rt.client.option_flags import click_options
from rt.config import Loaded
from rt.errors import BufferBusyError, DeviceBufferError, DeviceError
from rt.process.signals import run_until_signal
from rt.terminal.number import Number
from rt.text import listed

RENEW_INTERVAL: Final = 0.02
"""Interval between lease renewals (s)."""
SEND_TIMEOUT: Final = 2.0
"""Time limit for sending the values, and for disabling the device at the end (s)."""
MODE_END_LIMIT: Final = 2.0
"""Time limit for the process of an ended mode to exit (s)."""
_CHECK_INTERVAL: Final = 1.0
_POLL_INTERVAL: Final = 0.01
_END_REASONS: Final = {
    Bar.MODE: "a mode started, and now the team's code drives",
    Bar.BRAKE: (
        "the brake, which disables devices when a process dies, is not ready;"
        " wait until `rt call status` shows it as ready, or see `rt logs`"
    ),
    Bar.ESTOP: "emergency stop",
    Bar.STOPPING: "the robot is stopping",
    Bar.DAMAGED: "team code overwrote the robot's shared memory",
    Bar.STALLED: "the robot's main process stalled",
}

HELP = f"""\
Drive a device from the command line.

Writes the parameters and keeps the device enabled until Ctrl-C, then disables it. VALUE is a
number, true or false.

{UID_HELP}

The command is refused while a mode runs, because the team's code drives then, and ends when a mode
starts.

\b
rt write left_motor duty_cycle=0.25
rt write left_motor duty_cycle=-1 deadband=0.05 --seconds 2
"""


@click.command(help=HELP)
@click.argument("uid", shell_complete=completers.devices)
@click.argument(
    "settings",
    nargs=-1,
    required=True,
    metavar="PARAM=VALUE...",
    shell_complete=completers.writeable,
)
@click.option(
    "--seconds",
    type=Number(above=0),
    default=math.inf,
    metavar="SECONDS",
    help="Stop after this time. [until Ctrl-C]",
)
@click_options("instance")
def command(loaded: Loaded, uid: str, settings: tuple[str, ...], seconds: float) -> None:
    """Drive a device from the command line."""

    async def show(robot: connection.Connection) -> None:
        devices = await Devices.of(robot)
        device = await devices.find_one(uid)
        values = parse_settings(device, settings)
        wakeups, write_event = robot.app.wakeups, robot.app.write_event
        assert wakeups is not None, "a session has wakeups"
        assert write_event is not None, "a session has the write event"
        lease = robot.app.make_lease_table().lease(wakeups.slot)
        end = "Ctrl-C disables it" if seconds == math.inf else f"it is disabled after {seconds:g} s"
        driver = _Driver(device, lease, write_event, end)

        async def drive() -> None:
            with trio.move_on_after(seconds):
                await driver.drive(
                    values, lambda: _watch(devices, device), lambda: _require_idle(robot)
                )

        with _claimed(robot.instance.directory, device):
            await run_until_signal(drive)
        if driver.disabled:
            click.echo(f"{device.name} is disabled")
        else:
            raise DeviceError(
                f"{device.name} was not disabled within {SEND_TIMEOUT:g} s; see `rt devices`",
                uid=str(device.uid),
            )

    connection.run(loaded.config, show, access=connection.Access.SESSION)


@contextlib.contextmanager
def _claimed(directory: Path, device: Device) -> Iterator[None]:
    """Claim a device for this command. The claim ends with the process at the latest.

    Raises:
        DeviceError: Another command drives the device.
    """
    with (directory / f"write-{device.uid}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip()
            raise DeviceError(
                f"another `rt write`{f' (process {pid})' if pid else ''} drives {device.name};"
                " end it first",
                uid=str(device.uid),
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        yield


async def _require_idle(robot: connection.Connection) -> None:
    """Check that no mode runs.

    Raises:
        DeviceError: A mode runs.
    """
    mode = await robot.client.issue_call("mode", address="executor-service", timeout=SEND_TIMEOUT)
    if mode != "idle":
        raise DeviceError(
            f"the robot is in {mode}, and the team's code drives; run `rt call idle` first",
            mode=mode,
        )


def parse_settings(device: Device, settings: Sequence[str]) -> dict[str, Any]:
    """Return the values by parameter from ``PARAM=VALUE`` texts.

    Raises:
        DeviceError: A text has another form, or its parameter does not exist, is not writeable or
            does not accept the value.
    """
    from rt.textformat.value import TextFormatError, pack_value

    values: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise DeviceError(
                f"invalid setting {text!r}; use PARAM=VALUE, such as duty_cycle=0.5", setting=text
            )
        param = next((each for each in device.peripheral.params if each.name == name), None)
        if param is None:
            raise unknown_parameter(device.peripheral, name)
        if not param.writeable:
            type_name = device.peripheral.name
            writeable = [each.name for each in device.peripheral.params if each.writeable]
            hint = (
                f"writeable parameters: {listed(writeable)}"
                if writeable
                else f"{type_name} has no writeable parameter"
            )
            owner = type_name if device.name == str(device.uid) else device.name
            raise DeviceError(f"{owner}.{name} is read-only; {hint}", setting=text)
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
        if isinstance(values[name], str):
            raise DeviceError(f"{text!r}: the value must be a number, true or false", setting=text)
        try:
            pack_value(param, values[name], limited=True)
        except TextFormatError as error:
            raise DeviceError(f"{text!r}: {error}", setting=text) from None
    return values


class _Driver:
    """The writer of one device under a lease.

    Args:
        device: The device.
        lease: The lease of this command.
        write_event: The event that wakes up the device process.
        end: What ends the drive, for the message to the user.

    Attributes:
        disabled: Whether the device was disabled at the end.
    """

    def __init__(
        self, device: Device, lease: Lease, write_event: WriteEvent, end: str = "Ctrl-C disables it"
    ) -> None:
        self.disabled = False
        self._device = device
        self._lease = lease
        self._write_event = write_event
        self._end = end

    async def drive(
        self,
        values: dict[str, Any],
        watch: Callable[[], Awaitable[None]],
        check: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """Write values and hold the lease until ``watch`` returns or the call is cancelled.

        At the end, wait up to `SEND_TIMEOUT` until the device is disabled, also when cancelled.

        Args:
            values: Values by parameter.
            watch: Returns when the drive is to end.
            check: Raises if writing is not allowed. It is called before the lease begins, and again
                before the values are written, because a mode may have started in between.

        Raises:
            DeviceError: The lease cannot begin, or ended; or the device was disabled or is gone.
        """
        await check()
        disables = self._device.buffer.counters.disables
        begun = False
        with trio.move_on_after(MODE_END_LIMIT):
            lease = self._lease
            while not (begun := lease.begin()) and lease.bar is Bar.MODE:  # noqa: ASYNC110
                await trio.sleep(_POLL_INTERVAL)
        if not begun:
            if self._lease.bar in {Bar.BRAKE, Bar.MODE}:
                raise DeviceError(_END_REASONS[self._lease.bar])
            how = " by an emergency stop" if self._lease.bar is Bar.ESTOP else ""
            raise DeviceError(f"the robot was stopped{how}; start it again to move devices")
        self._write_event.signal()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_lease)
                await check()
                await self._write(values)
                nursery.start_soon(self._watch_disables, self._device.buffer.counters.disables)
                await watch()
                nursery.cancel_scope.cancel()
        finally:
            before = self._device.buffer.counters.disables
            if not self._lease.held:
                before = disables  # the lease has ended, so the device may already be disabled
            self._lease.release()
            self._write_event.signal()
            with trio.move_on_after(SEND_TIMEOUT, shield=True):
                buffer = self._device.buffer
                while buffer.valid and buffer.counters.disables == before:  # noqa: ASYNC110
                    await trio.sleep(_POLL_INTERVAL)
                self.disabled = True

    async def _watch_disables(self, before: int) -> None:
        """Wait until the device is disabled or the lease ends.

        Raises:
            DeviceError: The device was disabled while the lease was held.
        """
        buffer = self._device.buffer
        while self._lease.held and buffer.counters.disables == before:  # noqa: ASYNC110 - no event
            await trio.sleep(_CHECK_INTERVAL)
        if self._lease.held and buffer.valid:
            raise DeviceError(
                f"{self._device.name} was disabled by another command, such as `rt call disable`",
                uid=str(self._device.uid),
            )

    async def _keep_lease(self) -> None:
        """Renew the lease until cancelled.

        Raises:
            DeviceError: The lease has ended, and the device is disabled. The lease is not begun
                again.
        """
        while True:
            await trio.sleep(RENEW_INTERVAL)
            if not self._lease.renew():
                why = (
                    _END_REASONS.get(self._lease.cause, "the robot was stopped")
                    if self._lease.revoked
                    else f"this command did not run for {TIMEOUT:g} s; run it again to continue"
                )
                raise DeviceError(
                    f"{self._device.name} was disabled: {why}", uid=str(self._device.uid)
                )

    async def _write(self, values: dict[str, Any]) -> None:
        """Write the values and wait until they are sent.

        Raises:
            DeviceError: The device disconnected, or the values were not sent in time.
        """
        buffer = self._device.buffer
        before = buffer.sent
        with trio.move_on_after(SEND_TIMEOUT):
            while not self._written(values):  # noqa: ASYNC110 - locks signal no event
                await trio.sleep(_POLL_INTERVAL)
            while any(buffer.sent[name] == before[name] for name in values):  # noqa: ASYNC110
                await trio.sleep(_POLL_INTERVAL)
            shown = ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items())
            click.echo(f"{self._device.name}: sent {shown}; {self._end}")
            return
        raise DeviceError(
            f"{self._device.name}: values not sent within {SEND_TIMEOUT:g} s;"
            " see `rt logs --since 1m`",
            uid=str(self._device.uid),
        )

    def _written(self, values: dict[str, Any]) -> bool:
        """Write all values in one transaction, so that one message carries them.

        Returns:
            False if another process holds the lock.
        """
        buffer = self._device.buffer
        try:
            with buffer.transaction():
                for name, value in values.items():
                    buffer.write(name, value)
        except BufferBusyError:
            return False
        except DeviceBufferError:
            self._device.raise_disconnected()
        return True


async def _watch(devices: Devices, device: Device) -> None:
    """Wait until the device disconnects or the robot ends.

    Raises:
        DeviceError: The device disconnected.
        InstanceAbsentError: The robot has ended.
    """
    while True:
        with trio.move_on_after(_CHECK_INTERVAL):
            await device.buffer.changed()
        if not device.buffer.valid:
            device.raise_disconnected()
        devices.require()
