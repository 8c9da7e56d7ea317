"""The root's heartbeat in the lease table.

While every slot is barred, the root stamps the table twice a second. While a lease may be valid, it
stamps every 20 ms, so that the device process notices within 100 ms that the root is stalled.

Invariant: a root that was stalled for `LONGEST_DELAY` revokes every lease before it stamps again,
so that nothing moves by itself. After 100 ms without a stamp the devices are disabled. After a
shorter stall, or one in which the root waited for a processor, a mode may continue; each one counts
as a cut-off of the mode (`rt.executor.lease`).
"""

from collections.abc import Callable
from typing import Final

import trio

from rt import log
from rt.buffer import LeaseTable
from rt.buffer.lease import Bar
from rt.buffer.write_event import WriteEvent
from rt.diagnostics.run_delay import RunDelay

IDLE_INTERVAL: Final = 0.5
OPEN_INTERVAL: Final = 0.02
"""Time between two stamps while every slot is barred, and while a lease may be valid (s)."""
LONGEST_DELAY: Final = 0.2
"""How late a stamp may be before the root counts as stalled (s)."""
LONGEST_WAIT: Final = 2.0
"""The same if the root waited for a processor for at least half of that time (s)."""


async def run_heartbeat(
    leases: LeaseTable,
    write_event: WriteEvent,
    check: Callable[[], object] = lambda: None,
    waited: Callable[[], float] | None = None,
    on_stall: Callable[[], object] = lambda: None,
    *,
    idle_interval: float = IDLE_INTERVAL,
    open_interval: float = OPEN_INTERVAL,
    longest_delay: float = LONGEST_DELAY,
    longest_wait: float = LONGEST_WAIT,
) -> None:
    """Stamp the lease table until cancelled.

    Args:
        leases: The lease table.
        write_event: Signalled when leases were revoked.
        check: Verifies the shared memory; called before each stamp, except the one when a slot is
            unbarred.
        waited: Returns how long this thread has waited for a processor (s); by default as the
            kernel measures it.
        on_stall: Called when the root was stalled while a lease was held, after every lease was
            revoked.
        idle_interval: See `IDLE_INTERVAL`.
        open_interval: See `OPEN_INTERVAL`.
        longest_delay: See `LONGEST_DELAY`.
        longest_wait: See `LONGEST_WAIT`.
    """
    waited = waited or RunDelay().read
    unbarred = trio.lowlevel.ParkingLot()
    held = stalled = False
    interval = idle_interval
    last, last_waited = leases.clock(), waited()

    def stamp(until_next: float) -> None:
        """Stamp the table; before that, revoke every lease if the root was stalled."""
        nonlocal held, stalled, interval, last, last_waited
        # A lease that began after the last stamp and has expired since was never seen as held, but
        # its slot was open.
        before, held = held or interval == open_interval, leases.held
        now, now_waited = leases.clock(), waited()
        gap = (now - last) / 1e9
        longest = longest_wait if now_waited - last_waited >= gap / 2 else longest_delay
        if gap >= interval + longest and (held or before):
            leases.revoke_all(Bar.STALLED)
            stalled = True
            write_event.signal()
            log.get_logger().warning("root was stalled; every lease revoked", seconds=round(gap, 3))
        leases.heartbeat()
        last, last_waited, interval = now, now_waited, until_next

    def stamp_before_unbarring() -> None:
        stamp(open_interval)
        unbarred.unpark_all()

    leases.on_unbar = stamp_before_unbarring
    while True:
        check()
        is_open = leases.any_unbarred()
        stamp(open_interval if is_open else idle_interval)
        # Not in stamp(): called for unbarring, it would open the slot of a mode that has ended.
        if stalled:
            stalled = False
            on_stall()
        if is_open:
            await trio.sleep(open_interval)
        else:
            # At a multiple of the interval, so that the process wakes once for all periodic tasks.
            with trio.move_on_after(idle_interval - trio.current_time() % idle_interval):
                await unbarred.park()
