"""`rt write UID PARAM=VALUE...`: drive a device from the command line, for as long as the command lives.

The rule of this module: what it writes moves a device only under a lease of its own, which ends
with the command however that happens; then the device process disables what it moved. A device that
leaves is not driven again when it comes back.

One commander at a time drives: the command is refused while a mode runs, and ends when one begins,
since a motor that two write to jerks. Of two commands, the second is refused at the same device.
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
from rt.client.options import click_options
from rt.config import Loaded
from rt.errors import BufferBusyError, DeviceBufferError, DeviceError
from rt.terminal.number import Number
from rt.terminal.signals import run_until_signal
from rt.text import listed

RENEW_INTERVAL: Final = 0.02
"""Time between two renewals of the lease (s)."""
SEND_TIMEOUT: Final = 2.0
"""How long the device process may take to send the values, and to disable the device in the end (s)."""
MODE_END_LIMIT: Final = 2.0
"""How long the process of a mode that is over may take to end (s)."""
BRAKE_NOT_READY: Final = (
    "the robot lets nothing move, because its brake, which disables devices when a process ends, is not ready:"
    " wait until `rt call status` shows it as ready, or see `rt logs`"
)
"""Why this command moves nothing while there is no brake."""
_CHECK_INTERVAL: Final = 1.0
_POLL_INTERVAL: Final = 0.01
_END_REASONS: Final = {
    Bar.MODE: "a mode has begun, and the team's code drives now",
    Bar.BRAKE: BRAKE_NOT_READY,
    Bar.ESTOP: "emergency stop",
    Bar.STOPPING: "the robot is being stopped",
    Bar.DAMAGED: "team code has overwritten the robot's shared memory",
    Bar.STALLED: "the robot's main process stood still",
}

HELP = f"""\
Write parameters of a device and let it act on them until Ctrl-C; then it is disabled. VALUE is a number, true or false.

{UID_HELP} While a mode runs the team's code drives, and this is refused; it ends when a mode begins.

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
    help="End by itself after so long. [until Ctrl-C]",
)
@click_options("instance")
def command(loaded: Loaded, uid: str, settings: tuple[str, ...], seconds: float) -> None:
    """Drive a device from the command line."""

    async def show(robot: connection.Connection) -> None:
        devices = await Devices.of(robot)
        device = await devices.find_one(uid)
        values = parse_settings(device, settings)
        wakeups, write_event = robot.app.wakeups, robot.app.write_event
        assert wakeups is not None, "a visitor has bells"
        assert write_event is not None, "a visitor has the doorbell"
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
                f"{device.name} was not seen to be disabled within {SEND_TIMEOUT:g} s: see `rt devices`",
                uid=str(device.uid),
            )

    connection.run(loaded.config, show, access=connection.Access.SESSION)


@contextlib.contextmanager
def _claimed(directory: Path, device: Device) -> Iterator[None]:
    """Be the only command that writes to a device, for as long as this process lives at most.

    Raises:
        DeviceError: Another command writes to it.
    """
    with (directory / f"write-{device.uid}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip()
            raise DeviceError(
                f"another `rt write`{f', process {pid},' if pid else ''} drives {device.name}: end it first",
                uid=str(device.uid),
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        yield


async def _require_idle(robot: connection.Connection) -> None:
    """Refuse to write while a mode runs.

    Raises:
        DeviceError: One does.
    """
    mode = await robot.client.issue_call("mode", address="executor-service", timeout=SEND_TIMEOUT)
    if mode != "idle":
        raise DeviceError(
            f"the robot is in {mode}, and the team's code drives: `rt call idle` first", mode=mode
        )


def parse_settings(device: Device, settings: Sequence[str]) -> dict[str, Any]:
    """The values by parameter that ``PARAM=VALUE`` texts give.

    Raises:
        DeviceError: One is not of that form, its parameter does not exist or cannot be written, or
            the value does not fit it.
    """
    from rt.textformat.value import TextFormatError, pack_value

    values: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise DeviceError(f"{text!r} has to be PARAM=VALUE, as duty_cycle=0.5", setting=text)
        param = next((each for each in device.peripheral.params if each.name == name), None)
        if param is None:
            raise unknown_parameter(device.peripheral, name)
        try:
            if not param.writeable:
                writeable = [each.name for each in device.peripheral.params if each.writeable]
                kind = device.peripheral.name
                hint = (
                    f"; these can be written: {listed(writeable)}"
                    if writeable
                    else f": no parameter of {kind} can be written"
                )
                shown = kind if device.name == str(device.uid) else device.name
                raise DeviceError(
                    f"{shown}.{name} cannot be written, only read{hint}", setting=text
                )
            values[name] = json.loads(value)
            if isinstance(values[name], str):
                raise DeviceError(
                    f"{text!r}: the value has to be a number, true or false", setting=text
                )
            pack_value(param, values[name], limited=True)
        except TextFormatError as error:
            raise DeviceError(f"{text!r}: {error}", setting=text) from None
        except json.JSONDecodeError:
            raise DeviceError(
                f"{text!r}: the value has to be a number, true or false", setting=text
            ) from None
    return values


class _Driver:
    """Drives one device under a lease; ``end`` says to a person when that ends.

    Attributes:
        disabled: Whether the device was seen to be disabled in the end.
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
        """Write values and hold the lease until ``watch`` returns, or a cancel; then see that the device is disabled.

        Args:
            values: By parameter.
            watch: Waits for the end.
            check: Raises if nothing may be written now; called before the lease begins, and again
                before the values are written, since a mode may have begun meanwhile.
        """
        await check()
        disables = self._device.buffer.counters.disables
        begun = False
        with trio.move_on_after(MODE_END_LIMIT):
            while not (begun := self._lease.begin()) and self._lease.bar is Bar.MODE:  # noqa: ASYNC110 - a bar rings no bell
                await trio.sleep(_POLL_INTERVAL)
        if not begun:
            if self._lease.bar is Bar.BRAKE:
                raise DeviceError(BRAKE_NOT_READY)
            if self._lease.bar is Bar.MODE:
                raise DeviceError(_END_REASONS[Bar.MODE])
            why = "by an emergency stop" if self._lease.bar is Bar.ESTOP else "just now"
            raise DeviceError(
                f"the robot was stopped {why}: nothing moves until it is started again"
            )
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
                before = disables  # the lease has ended already, and the device may have been disabled for that
            self._lease.release()
            self._write_event.signal()
            with trio.move_on_after(SEND_TIMEOUT, shield=True):
                while self._device.buffer.valid and self._device.buffer.counters.disables == before:  # noqa: ASYNC110 - counters ring no bell
                    await trio.sleep(_POLL_INTERVAL)
                self.disabled = True

    async def _watch_disables(self, before: int) -> None:
        """Wait until the device is disabled while the lease is held.

        Raises:
            DeviceError: It was: this command drives it no more.
        """
        buffer = self._device.buffer
        while self._lease.held and buffer.counters.disables == before:  # noqa: ASYNC110 - counters ring no bell
            await trio.sleep(_CHECK_INTERVAL)
        if self._lease.held and buffer.valid:
            raise DeviceError(
                f"{self._device.name} was disabled by another command, such as `rt call disable`",
                uid=str(self._device.uid),
            )

    async def _keep_lease(self) -> None:
        """Renew the lease, for ever.

        Raises:
            DeviceError: It has ended, so that the device is disabled; it does not start again by
                itself.
        """
        while True:
            await trio.sleep(RENEW_INTERVAL)
            if not self._lease.renew():
                why = (
                    _END_REASONS.get(self._lease.cause, "the robot was told to stop")
                    if self._lease.revoked
                    else f"this command did not run for {TIMEOUT:g} s; start it again to continue"
                )
                raise DeviceError(
                    f"{self._device.name} was disabled: {why}", uid=str(self._device.uid)
                )

    async def _write(self, values: dict[str, Any]) -> None:
        """Write the values and wait until they are on the line.

        Raises:
            DeviceError: The device has left, or the values were not sent in time.
        """
        buffer = self._device.buffer
        before = buffer.sent
        with trio.move_on_after(SEND_TIMEOUT):
            while not self._written(values):  # noqa: ASYNC110 - a lock of another process rings no bell
                await trio.sleep(_POLL_INTERVAL)
            while any(buffer.sent[name] == before[name] for name in values):  # noqa: ASYNC110 - counters ring no bell
                await trio.sleep(_POLL_INTERVAL)
            shown = ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items())
            click.echo(f"{self._device.name}: {shown} is sent; {self._end}")
            return
        raise DeviceError(
            f"{self._device.name} was not sent its values within {SEND_TIMEOUT:g} s: is the robot's log quiet?",
            uid=str(self._device.uid),
        )

    def _written(self, values: dict[str, Any]) -> bool:
        """Write all values at once, so that they travel in one message; False if another process holds the lock."""
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
    """Wait for ever, as long as the robot and the device are there.

    Raises:
        DeviceError: The device has left.
        InstanceAbsentError: The robot has ended.
    """
    while True:
        with trio.move_on_after(_CHECK_INTERVAL):
            await device.buffer.changed()
        if not device.buffer.valid:
            device.raise_disconnected()
        devices.require()
