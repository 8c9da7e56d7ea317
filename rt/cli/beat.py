"""The root's sign of life in the lease table.

While every slot is barred, it is stamped twice a second, which costs next to nothing. While a lease may count, it is stamped every
20 ms, so that the device process notices within 100 ms that the root stands still.

Invariant: a root that stood still for `LONGEST_DELAY` ends every lease before it stamps again, so that nothing moves again by itself.
From 100 ms on, the devices are disabled; after a shorter silence, or one in which the root waited for a processor, a mode may drive on,
and each time counts as a cut-off of the mode (`rt.executor.lease`).
"""

from collections.abc import Callable
from typing import Final

import trio

from rt import log
from rt.buffer import Doorbell, LeaseTable
from rt.buffer.clock import boottime_ns
from rt.buffer.lease import Bar
from rt.diagnostics.run_delay import RunDelay

IDLE_INTERVAL: Final = 0.5
OPEN_INTERVAL: Final = 0.02
"""Time between two stamps in s, while every slot is barred and while a lease may count."""
LONGEST_DELAY: Final = 0.2
"""How late a stamp may be, in s, until the root counts as having stood still."""
LONGEST_WAIT: Final = 2.0
"""The same, in s, if the root waited for a processor for at least half of that time: the computer is busy."""


async def beat(
    leases: LeaseTable,
    doorbell: Doorbell,
    check: Callable[[], object] = lambda: None,
    run_delay: Callable[[], Callable[[], float]] = lambda: RunDelay().read,
    on_stall: Callable[[], object] = lambda: None,
) -> None:
    """Stamp until cancelled.

    Args:
        leases: Where to stamp.
        doorbell: Rung when leases were ended.
        check: Verifies the shared memory; called before each stamp, but for the one when a slot is unbarred.
        run_delay: Makes what tells how long this thread has waited for a processor (s).
        on_stall: Called when the root stood still while a lease was held, after every lease has ended.
    """
    waited = run_delay()
    unbarred = trio.Event()
    held = stalled = False
    interval = IDLE_INTERVAL
    last, last_waited = boottime_ns(), waited()

    def stamp(until_next: float) -> None:
        """Stamp, and end every lease before that if the root stood still."""
        nonlocal held, stalled, interval, last, last_waited
        # A lease that began after the last stamp, and has lapsed since, was never seen here: its slot was open.
        before, held = held or interval == OPEN_INTERVAL, leases.held
        now, now_waited = boottime_ns(), waited()
        gap = (now - last) / 1e9
        longest = LONGEST_WAIT if now_waited - last_waited >= gap / 2 else LONGEST_DELAY
        if gap >= interval + longest and (held or before):
            leases.revoke_all(Bar.STALLED)
            stalled = True
            doorbell.ring()
            log.get_logger().warning("the root stood still: every lease is revoked", seconds=round(gap, 3))
        leases.beat()
        last, last_waited, interval = now, now_waited, until_next

    def stamp_before_unbarring() -> None:
        stamp(OPEN_INTERVAL)
        unbarred.set()

    leases.on_unbar = stamp_before_unbarring
    while True:
        check()
        is_open = leases.may_count()
        stamp(OPEN_INTERVAL if is_open else IDLE_INTERVAL)
        if stalled:  # not while a slot is unbarred: that would open the slot of a mode that has just ended
            stalled = False
            on_stall()
        if is_open:
            await trio.sleep(OPEN_INTERVAL)
        else:
            unbarred = trio.Event()
            # At a multiple of the interval, when other tasks of the root run too.
            with trio.move_on_after(IDLE_INTERVAL - trio.current_time() % IDLE_INTERVAL):
                await unbarred.wait()
