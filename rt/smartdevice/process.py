"""Entry points of the device process and of the process that emulates virtual devices.

Invariant: however the device process ends (the root is dead, SIGTERM, an exception), it disables
    every device first. Everything that this needs is imported at the start of the process.
"""

import difflib  # noqa: F401 - for `rt.text`: a late import would block the event loop
import functools
import gc
import signal
from collections.abc import Sequence, Sized

import trio

from rt import log
from rt.app import Application, ChildSettings
from rt.brake.connection import Endpoint
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
"""Seconds after the root's death until the kernel kills a device process that has not ended; its
lines may take 1.2 s. The brake, if there is one, kills it earlier.
"""


def main(settings: ChildSettings, lifeline: Lifeline) -> int:
    """Run the device process, or the process of virtual devices.

    Returns:
        The exit code.

    Raises:
        RuntimeBaseException: It cannot start because the catalog is invalid or an address is taken;
            wrapped in exception groups by its nurseries.
    """
    serve = serve_devices if settings.role == "device" else serve_emulated
    with signals.capture_early_signals(*STOP_SIGNALS) as early:
        trio.run(serve, settings, lifeline, early)
    return 0


async def serve_devices(settings: ChildSettings, lifeline: Lifeline, early: list[int]) -> None:
    """Run all devices until the root is dead or a stop signal arrives, then disable them."""
    config = settings.config
    async with Application.for_child(settings) as app, trio.open_nursery() as nursery:
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
            # A task of its own: waiting for an absent router must not delay the end of the
            # process.
            await app.make_service(manager)
            app.report_health()
            # Objects made so far live as long as the process; exclude them from garbage
            # collection.
            gc.freeze()
            notify.send(ready=True, status="ready")
            await _report_status(manager.devices)

        nursery.start_soon(open_serial_devices)
        nursery.start_soon(serve_calls)
        try:
            reason = await _stop_reason(lifeline, early)
            if reason == _ROOT_DEAD:
                signal.alarm(ALARM_TIMEOUT)
            notify.send(stopping=True)
            log.get_logger().info("device process stopping", reason=reason)
        finally:
            await manager.disable_all()
        nursery.cancel_scope.cancel()


def _orders(brake: Sequence[int]) -> memoryview | None:
    """Map the root's orders, in memory that commanders do not have; None without a brake."""
    return map_orders(Endpoint(*brake).memory, ORDERS_SIZE) if brake else None


async def serve_emulated(settings: ChildSettings, lifeline: Lifeline, early: list[int]) -> None:
    """Emulate the virtual devices of the settings until the root is dead or a signal arrives."""
    from rt.emulator.lines import EmulatedDevice, connect_emulated
    from rt.emulator.scheduler import Scheduler
    from rt.emulator.simulation import SimState
    from rt.emulator.uid_spec import parse_uid_spec

    lifeline.kill_group_at_eof()
    async with Application.for_child(settings) as app, trio.open_nursery() as nursery:
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
        nursery.start_soon(_report_status, settings.emulated)
        await _stop_reason(lifeline, early)
        notify.send(stopping=True)
        nursery.cancel_scope.cancel()


_ROOT_DEAD = "the root has exited"


async def _stop_reason(lifeline: Lifeline, early: list[int]) -> str:
    """Wait until this process has to stop, and return why."""
    reason = _ROOT_DEAD

    async def wait_for_signal(scope: trio.CancelScope) -> None:
        nonlocal reason
        reason = await signals.wait(*STOP_SIGNALS, early=early)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_signal, nursery.cancel_scope)
        await lifeline.closed()
        nursery.cancel_scope.cancel()
    return reason


def _count(devices: Sized) -> str:
    return f"{len(devices)} device{'' if len(devices) == 1 else 's'}"


async def _report_status(devices: Sized) -> None:
    """Send watchdog signs to the supervisor at its interval, with the number of devices."""
    period = notify.watchdog_period() or 1.0
    while True:
        notify.send(watchdog=True, status=_count(devices))
        await trio.sleep(period)
