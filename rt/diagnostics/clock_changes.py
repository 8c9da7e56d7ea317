"""Log events about changes of the system clock.

A Raspberry Pi has no battery-backed clock: until it gets the time from the network, it starts with
the time of its last shutdown, or with 1970. Then the timestamps in the log jump. From these events,
`rt logs --since` computes how old earlier lines are.
"""

import time

import trio

from rt import log
from rt.protocol.logevent import CLOCK_MOVED

INTERVAL = 1.0
"""Time between two checks of the clock (s)."""
MIN_CHANGE = 1.0
"""The smallest change between two checks that is logged (s); smaller ones are normal."""


async def watch_clock() -> None:
    """Log each change of the system clock until cancelled."""
    before = _offset()
    while True:
        await trio.sleep(INTERVAL)
        now = _offset()
        if abs(now - before) >= MIN_CHANGE:
            direction = "forward" if now > before else "back"
            event = f"system clock was set {direction}"
            log.get_logger().info(event, **{CLOCK_MOVED: round(now - before, 1)})
        before = now


def _offset() -> float:
    """Return how far the clock is ahead of CLOCK_BOOTTIME, which runs during suspends (s)."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
