"""The root's sign of life in the lease table.

While every slot is barred, it is stamped twice a second, which costs next to nothing. While a lease may count, it is stamped every
20 ms, so that the device process notices within 100 ms that the root stands still.

Invariant: a root that stood still for `LONGEST_DELAY` ends every lease before it stamps again, so that nothing moves again by itself.
After a shorter silence, from 100 ms on, the devices are disabled and a mode may drive on; each time counts as a cut-off of the mode
(`rt.executor.lease`).
"""

from collections.abc import Callable
from typing import Final

import trio

from rt import log
from rt.buffer import Doorbell, LeaseTable
from rt.buffer.clock import boottime_ns

IDLE_INTERVAL: Final = 0.5
OPEN_INTERVAL: Final = 0.02
"""Time between two stamps in s, while every slot is barred and while a lease may count."""
LONGEST_DELAY: Final = 0.2
"""How late a stamp may be, in s, until the root counts as having stood still."""


async def beat(leases: LeaseTable, doorbell: Doorbell, check: Callable[[], object] = lambda: None) -> None:
    """Stamp until cancelled.

    Args:
        leases: Where to stamp.
        doorbell: Rung when leases were ended.
        check: Called before each stamp; verifies the shared memory.
    """
    unbarred = trio.Event()
    held = False
    interval = IDLE_INTERVAL
    last = boottime_ns()

    def stamp(until_next: float) -> None:
        """Stamp, and end every lease before that if the root stood still."""
        nonlocal held, interval, last
        check()
        before, held = held, leases.held
        now = boottime_ns()
        gap = (now - last) / 1e9
        if gap >= interval + LONGEST_DELAY and (held or before):
            leases.revoke_all()
            doorbell.ring()
            log.get_logger().warning("the root stood still: every lease is revoked", seconds=round(gap, 3))
        leases.beat()
        last, interval = now, until_next

    def stamp_before_unbarring() -> None:
        stamp(OPEN_INTERVAL)
        unbarred.set()

    leases.on_unbar = stamp_before_unbarring
    while True:
        if leases.may_count():
            stamp(OPEN_INTERVAL)
            await trio.sleep(OPEN_INTERVAL)
        else:
            stamp(IDLE_INTERVAL)
            unbarred = trio.Event()
            # At a multiple of the interval, when other tasks of the root run too.
            with trio.move_on_after(IDLE_INTERVAL - trio.current_time() % IDLE_INTERVAL):
                await unbarred.wait()
