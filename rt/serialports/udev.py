"""Which serial ports there are, as soon as the system says so.

The rule of this module: what is said is a reason to look, never the truth itself. So news that come
late, twice or not at all do no harm.
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
"""Time after which one looks even if nobody has said anything, in s."""


class EventObserver(PollingObserver):
    """Watches for serial ports by listening to udev, or to the kernel where no udevd runs.

    It listens before it looks for the first time, so no port is missed. It looks whenever something
    is said of a tty, at all ports: also when more was said than the kernel keeps. And it looks
    without that every 5 s, as a net; every 0.5 s if one of the globs names what is never announced:
    pseudo-terminals, and links outside /dev/serial (see `PortFilter.polled_patterns`).

    Args:
        patterns: Globs of paths, or a filter that says which ports count.
        interval: Time between two looks at what is never announced in s.
        rescan: Time between two looks if nothing is said in s.
        monitor: Who listens; closed when `changes()` is. Made if None.

    Raises:
        UdevUnavailableError: This system does not say when ports appear.
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
        """Whom it listens to: ``udev`` or ``kernel``."""
        return self._monitor.source

    async def changes(self) -> AsyncGenerator[PortChange, None]:
        """Yield every change from now on, the ports that are there already as the first. Never ends.

        To be iterated once. If there is nothing to hear any more, it goes on as a
        `PollingObserver`.
        """
        heard = MonitorEvents([], lost=False)
        try:
            while True:
                number = last_sequence_number()
                change = self._state.update(
                    self._filter.find(), heard.events, number=number, lost=heard.lost
                )
                if change:
                    yield change
                with trio.move_on_after(self._rescan):
                    await trio.lowlevel.wait_readable(self._monitor.fileno())
                heard = self._monitor.read()
        except UdevUnavailableError as error:
            log.get_logger().warning(
                "serial ports are looked for every 0.5 s from now on", reason=error.message
            )
        finally:
            self._monitor.close()
        async with contextlib.aclosing(super().changes()) as changes:
            async for change in changes:
                yield change


def open_observer(ports: PortFilter) -> PollingObserver:
    """Return the best observer that this system has, and say in the log which it is."""
    logger = log.get_logger()
    try:
        observer = EventObserver(ports)
    except UdevUnavailableError as error:
        logger.info(
            "serial ports are looked for every 0.5 s",
            observer="PollingObserver",
            reason=error.message,
        )
        return PollingObserver(ports)
    logger.debug(
        "serial ports are found as they appear", observer="EventObserver", source=observer.source
    )
    return observer
