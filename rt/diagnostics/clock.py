"""Says when the clock of this computer was set while the robot runs.

A Raspberry Pi has no clock of its own: it starts with the time of its last stop, or with 1970,
until the network tells it better. Time stamps of the log jump then; by what is said here, `rt logs
--since` knows how long ago earlier lines were.
"""

import time

import trio

from rt import log
from rt.protocol.logevent import CLOCK_MOVED

INTERVAL = 1.0
"""How often the clock is looked at (s)."""
LEAST = 1.0
"""By how much it has to have moved between two looks (s): less is what keeping it exact takes."""


async def watch_clock() -> None:
    """Say each time that the clock was set, until cancelled."""
    before = _offset()
    while True:
        await trio.sleep(INTERVAL)
        now = _offset()
        if abs(now - before) >= LEAST:
            sentence = f"the clock was set {'forward' if now > before else 'back'}"
            log.get_logger().info(sentence, **{CLOCK_MOVED: round(now - before, 1)})
        before = now


def _offset() -> float:
    """By how much the clock is ahead of one that nobody sets, and that goes on while the computer sleeps."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
