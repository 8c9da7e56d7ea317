"""Observes which serial ports exist by polling.

This works on every system; a scan reads a few directories and does not block for longer than that.
`rt.serialports.udev` has an observer with the same interface that receives events.
"""

from collections.abc import AsyncGenerator, Iterable
from typing import Final

import trio

from rt.serialports.filter import PortFilter
from rt.serialports.port_state import PortChange, PortState

POLL_INTERVAL: Final = 0.5
"""Time between two scans where no events are available, in s."""


class PollingObserver:
    """Observes serial ports by polling.

    Args:
        patterns: Globs of paths, e.g. ``/dev/ttyACM*``, or a filter that selects ports.
        interval: Time between two scans in s.
    """

    def __init__(
        self, patterns: Iterable[str] | PortFilter, interval: float = POLL_INTERVAL
    ) -> None:
        self._filter = patterns if isinstance(patterns, PortFilter) else PortFilter(patterns)
        self._interval = interval
        self._state = PortState()

    @property
    def ports(self) -> frozenset[str]:
        """The paths of the ports of the last scan."""
        return self._state.ports

    def scan(self) -> PortChange:
        """Scan once, and return the changes since the last scan."""
        return self._state.update(self._filter.find())

    async def changes(self) -> AsyncGenerator[PortChange, None]:
        """Yield every change from now on, first the ports that already exist. Never ends.

        Scans happen at absolute times; a late one is not made up for.
        """
        due = trio.current_time()
        while True:
            change = self.scan()
            if change:
                yield change
            due = max(due + self._interval, trio.current_time())
            await trio.sleep_until(due)
