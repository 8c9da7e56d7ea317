"""Observes which serial ports exist by events of udev or the kernel.

Invariant: an event causes a scan and is never trusted by itself, so late, repeated or missing
    events are harmless.
"""

import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import Final

import trio

from rt import log
from rt.serialports.filter import PortFilter
from rt.serialports.observer import POLL_INTERVAL, PollingObserver
from rt.serialports.port_state import PortChange
from rt.serialports.uevents import (
    MonitorEvents,
    UdevMonitor,
    UdevUnavailableError,
    last_sequence_number,
)

RESCAN_INTERVAL: Final = 5.0
"""Time after which a scan happens without an event, in s."""


class EventObserver(PollingObserver):
    """Observes serial ports through udev, or through the kernel where no udevd runs.

    It subscribes before the first scan, so no port is missed. Every event about a tty, and a lost
    one, causes a scan of all ports. A scan also happens every 5 s without events; every 0.5 s if a
    glob matches what is never announced: pseudo-terminals, and links outside /dev/serial (see
    `PortFilter.polled_patterns`).

    Args:
        patterns: Globs of paths, or a filter that selects ports.
        interval: Time between two scans of what is never announced in s.
        rescan: Time between two scans without events in s.
        monitor: Receives the events; closed when `changes()` is. A new one if None.

    Raises:
        UdevUnavailableError: Events are not available on this system.
    """

    def __init__(
        self,
        patterns: Iterable[str] | PortFilter,
        interval: float = POLL_INTERVAL,
        *,
        rescan: float = RESCAN_INTERVAL,
        monitor: UdevMonitor | None = None,
    ) -> None:
        super().__init__(patterns, min(interval, rescan))
        self._rescan = self._interval if self._filter.polled_patterns else rescan
        self._monitor = monitor or UdevMonitor()

    @property
    def source(self) -> str:
        """The source of the events: ``udev`` or ``kernel``."""
        return self._monitor.source

    async def changes(self) -> AsyncGenerator[PortChange, None]:
        """Yield every change from now on, first the ports that already exist. Never ends.

        To be iterated once. If events become unavailable, it continues as a `PollingObserver`.
        """
        batch = MonitorEvents([], lost=False)
        try:
            while True:
                number = last_sequence_number()
                change = self._state.update(
                    self._filter.find(), batch.events, number=number, lost=batch.lost
                )
                if change:
                    yield change
                with trio.move_on_after(self._rescan):
                    await trio.lowlevel.wait_readable(self._monitor.fileno())
                batch = self._monitor.read()
        except UdevUnavailableError as error:
            log.get_logger().warning(
                "udev events ended; polling serial ports every 0.5 s", reason=error.message
            )
        finally:
            self._monitor.close()
        async with contextlib.aclosing(super().changes()) as changes:
            async for change in changes:
                yield change


def open_observer(ports: PortFilter) -> PollingObserver:
    """Return the best observer that this system supports, and log which one it is."""
    logger = log.get_logger()
    try:
        observer = EventObserver(ports)
    except UdevUnavailableError as error:
        logger.info(
            "polling serial ports every 0.5 s", observer="PollingObserver", reason=error.message
        )
        return PollingObserver(ports)
    logger.debug(
        "observing serial ports by events", observer="EventObserver", source=observer.source
    )
    return observer
