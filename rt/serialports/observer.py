"""Which serial ports there are.

Found by looking again and again, which works on every system; a look reads a few directories and
blocks nobody for longer than that. Where the system says when a port appears, `rt.serialports.udev`
has an observer with the same interface that listens.
"""

from collections.abc import AsyncGenerator, Iterable
from typing import Final

import trio

from rt.serialports.filter import PortFilter
from rt.serialports.port_state import PortChange, PortState

__all__ = ["POLL_INTERVAL", "PollingObserver", "PortChange"]

POLL_INTERVAL: Final = 0.5
"""Time between two looks where nobody says when a port appears, in s."""


class PollingObserver:
    """Watches for serial ports by looking again and again, which works on every system.

    Args:
        patterns: Globs of paths, e.g. ``/dev/ttyACM*``, or a filter that says which ports count.
        interval: Time between two looks in s.
    """

    def __init__(
        self, patterns: Iterable[str] | PortFilter, interval: float = POLL_INTERVAL
    ) -> None:
        self._filter = patterns if isinstance(patterns, PortFilter) else PortFilter(patterns)
        self._interval = interval
        self._state = PortState()

    @property
    def ports(self) -> frozenset[str]:
        """The paths of the ports of the last look."""
        return self._state.ports

    def scan(self) -> PortChange:
        """Look once and say what has changed since the last time."""
        return self._state.update(self._filter.find())

    async def changes(self) -> AsyncGenerator[PortChange, None]:
        """Yield every change from now on, the ports that are there already as the first. Never ends.

        Looks come at absolute times; one that is late is not made up for.
        """
        due = trio.current_time()
        while True:
            change = self.scan()
            if change:
                yield change
            due = max(due + self._interval, trio.current_time())
            await trio.sleep_until(due)
