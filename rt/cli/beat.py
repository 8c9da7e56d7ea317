"""The root's sign of life in the lease table.

Idle, it is stamped twice a second, which costs next to nothing. While a lease is held it is stamped every 20 ms, so that the
device process notices within 100 ms that the root stands still. The device process rings the root when devices begin to move.

Invariant: a root that stood still for `LONGEST_DELAY` ends every lease before it stamps again, so that nothing moves again by itself.
After a shorter silence, from 100 ms on, the devices are disabled and a mode may drive on; each time counts as a cut-off of the mode
(`rt.executor.lease`).
"""

from collections.abc import Callable
from typing import Final

import trio

from rt import log
from rt.buffer import Bells, Doorbell, LeaseTable
from rt.buffer.clock import boottime_ns

IDLE_INTERVAL: Final = 0.5
HELD_INTERVAL: Final = 0.02
"""Time between two stamps in s, while no lease is held and while one is."""
LONGEST_DELAY: Final = 0.2
"""How late a stamp may be, in s, until the root counts as having stood still."""


async def beat(
    leases: LeaseTable, bells: Bells, doorbell: Doorbell, check: Callable[[], object] = lambda: None
) -> None:
    """Stamp until cancelled.

    Args:
        leases: Where to stamp.
        bells: Wake this task when devices begin to move.
        doorbell: Rung when leases were ended.
        check: Called before each stamp; verifies the shared memory.
    """
    held = False
    interval = IDLE_INTERVAL
    last = boottime_ns()
    while True:
        check()
        before, held = held, leases.held
        now = boottime_ns()
        gap = (now - last) / 1e9
        if gap >= interval + LONGEST_DELAY and (held or before):
            leases.revoke_all()
            doorbell.ring()
            log.get_logger().warning("the root stood still: every lease is revoked", seconds=round(gap, 3))
        leases.beat()
        last = now
        if held:
            interval = HELD_INTERVAL
            await trio.sleep(HELD_INTERVAL)
        else:
            interval = IDLE_INTERVAL
            await _until_due(leases, bells)


async def _until_due(leases: LeaseTable, bells: Bells) -> None:
    """Wait until the device process rings, or the next stamp is due: at a multiple of the interval, when other tasks of the root run too.

    A ring is answered with a stamp also if no lease is held any more: after a lease has ended, an older stamp does not count for long.
    """
    with trio.move_on_after(IDLE_INTERVAL - trio.current_time() % IDLE_INTERVAL):
        if not leases.held:
            await bells.wait()
