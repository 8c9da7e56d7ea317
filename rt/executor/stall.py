"""Names the team code that keeps the event loop of the executor from running.

A C thread of `faulthandler` writes the tracebacks of all threads to the log pipe when the event
loop has not set it back in time. It needs no lock of the interpreter, so it works while team code
holds that lock; the root reads the tracebacks and logs the function and line (`rt.process.output`).
"""

import faulthandler
from typing import Final

import trio

from rt import log

LIMIT: Final = 0.75
"""How long the event loop may not run (s)."""
INTERVAL: Final = 0.2
"""Time between two of its signs of life (s)."""


class StallWatch:
    """Watches the event loop in which it is made; costs nothing before `begin`."""

    def __init__(self) -> None:
        self._descriptor = log.descriptor()
        self._began = trio.Event()

    def begin(self) -> None:
        """Watch from now on: call this before team code is let go."""
        self._arm()
        self._began.set()

    async def run(self) -> None:
        """Give the signs of life of the event loop until cancelled."""
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
