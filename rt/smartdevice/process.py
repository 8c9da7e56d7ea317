"""The device process, the safe one, and the process that plays virtual devices.

However the device process is made to end (the root is dead, SIGTERM, an exception), every device is
disabled before it does. Everything that this needs is imported when the process starts, and nothing
of the devices that are only played.
"""

import difflib  # noqa: F401 - for `rt.text`: the first wrong name is not to hold up the event loop by an import
import functools
import gc
import signal
from collections.abc import AsyncIterator, Sequence, Sized
from types import FrameType
from typing import NoReturn

import trio

from rt import log
from rt.app import Application, ChildSettings
from rt.brake.connection import Ends
from rt.brake.heartbeat import map_orders
from rt.buffer.lease import ORDERS_SIZE
from rt.process import notify, signals
from rt.process.lifeline import Lifeline
from rt.serialports.filter import PortFilter
from rt.serialports.udev import open_observer
from rt.smartdevice.manager import SmartDeviceManager
from rt.transport.address import split_address

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
ALARM_TIMEOUT = 3
"""Seconds after the death of the root until the kernel ends a device process that has not ended itself; its lines may take 1.2 s. The
brake, if there is one, ends it earlier.
"""


def main(settings: ChildSettings, lifeline: Lifeline) -> int:
    """Be the device process, or the one of virtual devices.

    Returns:
        The exit code.

    Raises:
        RuntimeBaseException: It cannot start: the catalog is wrong, an address is taken; in a
            group, as its nurseries make them.
    """
    # Before the event loop listens for signals, and when it does no more, one of them is an end
    # without trouble: also the second of two, which an executable that unpacks itself always gets.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    serve = serve_devices if settings.role == "device" else serve_emulated
    with signals.kept(*STOP_SIGNALS) as early:
        trio.run(serve, settings, lifeline, early)
    return 0


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


async def serve_devices(settings: ChildSettings, lifeline: Lifeline, early: list[int]) -> None:
    """Run all devices until the root is dead or SIGTERM or SIGINT arrives; then disable them and return."""
    config = settings.config
    with trio.open_signal_receiver(*STOP_SIGNALS) as received:
        async with Application.of_child(settings) as app, trio.open_nursery() as nursery:
            assert app.write_event is not None
            manager = SmartDeviceManager(
                app.make_buffer_manager(),
                app.make_lease_table(_orders(settings.brake)),
                app.write_event,
                names=app.names,
                write_interval=config.dev_poll_interval,
                brake=settings.brake,
            )
            await nursery.start(manager.run)
            await nursery.start(manager.open_virtual_devices, config.dev_vsd_addr)
            ports = PortFilter(config.dev_ports, config.dev_usb_ids, config.dev_ports_denied)

            async def open_serial_devices() -> None:
                observer = open_observer(ports)
                await manager.open_serial_devices(observer, baud_rate=config.dev_baud_rate)

            async def serve_calls() -> None:
                # A task of its own: a router that is not there yet, or no more, must not keep
                # anybody from stopping us.
                await app.make_service(manager)
                app.report_health()
                # What has been made so far lives as long as the process: collecting garbage need
                # not look at it again.
                gc.freeze()
                notify.send(ready=True, status="ready")
                await _report_status(manager)

            nursery.start_soon(open_serial_devices)
            nursery.start_soon(serve_calls)
            try:
                reason = await _stop_reason(lifeline, received, early)
                if reason == _ROOT_DEAD:
                    signal.alarm(ALARM_TIMEOUT)
                notify.send(stopping=True)
                log.get_logger().info("the device process stops", reason=reason)
            finally:
                await manager.disable_all()
            nursery.cancel_scope.cancel()


def _orders(brake: Sequence[int]) -> memoryview | None:
    """The words of the root in memory that commanders do not have; None without a brake."""
    return map_orders(Ends(*brake).memory, ORDERS_SIZE) if brake else None


async def serve_emulated(settings: ChildSettings, lifeline: Lifeline, early: list[int]) -> None:
    """Play the virtual devices of the settings until the root is dead or SIGTERM or SIGINT arrives."""
    from rt.emulator.lines import EmulatedDevice, connect_emulated
    from rt.emulator.scheduler import Scheduler
    from rt.emulator.simulation import SimState
    from rt.emulator.uid_spec import parse_uid_spec

    lifeline.kill_group_at_eof()
    with trio.open_signal_receiver(*STOP_SIGNALS) as received:
        async with Application.of_child(settings) as app, trio.open_nursery() as nursery:
            host, port = split_address(settings.config.dev_vsd_addr)
            sim_state, scheduler = SimState(), Scheduler()
            nursery.start_soon(scheduler.run)
            for spec in settings.emulated:
                uid, values = parse_uid_spec(spec, app.catalog)
                device = EmulatedDevice(app.catalog.of_uid(uid), uid, values, sim_state=sim_state)
                nursery.start_soon(
                    functools.partial(connect_emulated, device, host, port, scheduler=scheduler)
                )
            notify.send(ready=True, status=_count(settings.emulated))
            nursery.start_soon(_report_status)
            await _stop_reason(lifeline, received, early)
            notify.send(stopping=True)
            nursery.cancel_scope.cancel()


_ROOT_DEAD = "the root is gone"


async def _stop_reason(lifeline: Lifeline, received: AsyncIterator[int], early: list[int]) -> str:
    """Wait until this process has to stop, and say why."""
    if early:
        return signal.Signals(early[0]).name
    reason = ""

    async def wait_for_signal(scope: trio.CancelScope) -> None:
        nonlocal reason
        async for number in received:
            reason = signal.Signals(number).name
            scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_signal, nursery.cancel_scope)
        await lifeline.closed()
        reason = _ROOT_DEAD
        nursery.cancel_scope.cancel()
    return reason


def _count(devices: Sized) -> str:
    return f"{len(devices)} device{'' if len(devices) == 1 else 's'}"


async def _report_status(manager: SmartDeviceManager | None = None) -> None:
    """Tell the supervisor, as often as it wants, that this process is alive, and how many devices there are."""
    period = notify.watchdog_period() or 1.0
    while True:
        if manager is None:
            notify.send(watchdog=True)
        else:
            notify.send(watchdog=True, status=_count(manager.devices))
        await trio.sleep(period)
