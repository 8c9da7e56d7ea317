"""Which serial ports there are.

Found by looking again and again, which works on every system; a look reads one directory for each pattern and blocks nobody for
longer than that.
"""

import glob
import itertools
from collections.abc import AsyncGenerator, Iterable
from typing import Final

import msgspec
import trio

POLL_INTERVAL: Final = 0.5


class PortChange(msgspec.Struct, frozen=True):
    """What a look at the ports found new.

    Attributes:
        appeared: Paths that were not there at the look before.
        vanished: Paths that were.
    """

    appeared: frozenset[str]
    vanished: frozenset[str]


class PollingObserver:
    """Watches for serial ports by name.

    Args:
        patterns: Globs of paths, e.g. ``/dev/ttyACM*``.
        interval: Time between two looks in s.
    """

    def __init__(self, patterns: Iterable[str], interval: float = POLL_INTERVAL) -> None:
        self._patterns = tuple(patterns)
        self._interval = interval
        self._ports: frozenset[str] = frozenset()

    def look(self) -> PortChange:
        """Look once and say what has changed since the last time."""
        before = self._ports
        paths = map(glob.glob, self._patterns)
        self._ports = frozenset(itertools.chain.from_iterable(paths))
        return PortChange(self._ports - before, before - self._ports)

    async def changes(self) -> AsyncGenerator[PortChange, None]:
        """Yield every change from now on, the ports that are there already as the first. Never ends.

        Looks come at absolute times; one that is late is not made up for.
        """
        due = trio.current_time()
        while True:
            change = self.look()
            if change.appeared or change.vanished:
                yield change
            due = max(due + self._interval, trio.current_time())
            await trio.sleep_until(due)
