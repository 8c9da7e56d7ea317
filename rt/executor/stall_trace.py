"""Tracebacks of team code that keeps the executor's event loop from running.

A C thread of `faulthandler` writes the tracebacks of all threads to the log pipe when the event
loop has not reset it in time. That thread needs no interpreter lock, so it works while team code
holds the lock. The root reads the tracebacks and logs the function and line (`rt.process.output`).
"""

import faulthandler
from typing import Final

import trio

from rt import log

LIMIT: Final = 0.75
"""How long the event loop may not run, in s."""
INTERVAL: Final = 0.2
"""Time between two resets, in s."""


class StallWatch:
    """A watchdog of the event loop in which it is created; inactive before `begin`."""

    def __init__(self) -> None:
        self._descriptor = log.descriptor()
        self._began = trio.Event()

    def begin(self) -> None:
        """Start to watch; call this before team code is loaded."""
        self._arm()
        self._began.set()

    async def run(self) -> None:
        """Reset the watchdog at an interval until cancelled."""
        await self._began.wait()
        try:
            while True:
                self._arm()
                await trio.sleep(INTERVAL)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        if self._descriptor is not None:
            faulthandler.dump_traceback_later(LIMIT, file=self._descriptor)
