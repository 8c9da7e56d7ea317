"""Keeps the executor's lease on the devices: fresh only while the event loop is alive and team code keeps within its limits.

The main thread, which runs the team's functions, permits the lease until a moment that it states before each call. The event loop
renews it, again and again, while that moment has not come. If the main thread hangs, the permission runs out; if the event loop
hangs, so that nothing could end the mode, the lease is not renewed; if the process dies, neither happens. Each way the device process
disables every device at once, or when the last stamp is older than the lease's time-out.

Invariants: a lease that lapsed is not simply renewed. Each lapse is a cut-off, which is logged, and repeated cut-offs end the mode.
After a gap in which neither thread ran, as when the process was stopped, the mode ends: its commander has to start over. A gap in
which the process waited for a processor is a cut-off like others. What the root has ended stays ended.
"""

import math
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

import trio

from rt import log
from rt.buffer import Doorbell, Lease
from rt.buffer.lease import DRIVER_BARS, TIMEOUT, Bar
from rt.diagnostics.run_delay import RunDelay
from rt.executor.cutoff import CutoffCounter
from rt.executor.fork import is_forked

RENEW_INTERVAL: Final = 0.02
"""Time between two renewals (s): four may be missed before the lease lapses."""
GAP_LIMIT: Final = 0.4
"""The longest time (s) in which neither thread runs without ending the mode."""
HANDOVER: Final = 0.05
"""How long the lease of a mode that has ended by itself may be left to the root (s)."""
_HANDOVER_PAUSE: Final = 0.001
CUTOFFS: Final = 5
"""How many cut-offs end a mode, unless the option says otherwise."""

STOPPED: Final = "the robot was told to stop"
"""Why a mode ends whose lease the root has ended."""
UNBRAKED: Final = "the robot's brake is not ready: see `rt call status`"
"""The same if the root bars its slot for want of a brake."""
_ENDED: Final = {
    Bar.BRAKE: UNBRAKED,
    Bar.DAMAGED: "the robot's shared memory was overwritten",
    Bar.STALLED: "the robot's main process stood still: start the mode again",
}
"""The same, by what the root says about the lease."""

NOT_RETURNING: Final = "the team's code does not return: every device is disabled until it does"
"""Why a call that is late is cut off."""

_BUSY: Final = (
    "the computer is busy, and the team's code does not return in time: every device is disabled until it does"
)
_AGAIN: Final = "the team's code moves devices again"
_LATE: Final = "the event loop beside the team's code came late: every device was disabled"
_ROOT_LATE: Final = "the robot's main process does not respond: every device is disabled until it does"
_STOOD_STILL: Final = "the process was stopped or something kept it from running: every device was disabled"
_STARVED: Final = "the computer is busy, and the process waited for the processor: every device was disabled"


class LeaseKeeper:
    """The executor's lease, and until when it may be renewed.

    Args:
        lease: The executor's slot of the lease table.
        doorbell: Rung when the lease begins and ends, so that the device process looks at once.
        cutoffs: How many cut-offs within 10 s end the mode.
        on_end: Called, in any thread and at most once, with the sentence that says why the mode has to end. Nothing is granted
            from then on.
        gap_limit: See `GAP_LIMIT`.
        run_delay: Makes what tells how long the event loop's thread has waited for a processor (s); called in that thread.
        main_delay: Makes what tells the same of the main thread; called in the event loop's thread.
    """

    def __init__(
        self,
        lease: Lease,
        doorbell: Doorbell,
        *,
        cutoffs: int = CUTOFFS,
        on_end: Callable[[str], None] = lambda _reason: None,
        gap_limit: float = GAP_LIMIT,
        run_delay: Callable[[], Callable[[], float]] = lambda: RunDelay().read,
        main_delay: Callable[[], Callable[[], float]] = lambda: RunDelay(os.getpid()).read,
    ) -> None:
        self._lease = lease
        self._doorbell = doorbell
        self._cutoffs = CutoffCounter(cutoffs)
        self._on_end = on_end
        self._gap_limit = gap_limit
        self._make_run_delay = run_delay
        self._run_delay: Callable[[], float] | None = None
        self._waited = 0.0
        self._make_main_delay = main_delay
        self._main_delay: Callable[[], float] = lambda: 0.0
        self._main_grant = -math.inf
        self._main_waited = 0.0
        self._root_late = False
        self._is_cut_off = False
        self._until = -math.inf
        self._beaten = -math.inf
        self._granted = -math.inf
        self._holding = False
        self._sealed = False
        self._closed = False
        self._lock = threading.Lock()
        self._log = log.get_logger()

    @property
    def permitted(self) -> bool:
        """Whether the lease may be held at this moment."""
        return monotonic() < self._until

    def grant(self, until: float = math.inf, *, seal: bool = False) -> None:
        """Permit the lease until a moment (s of the monotonic clock), and hold it if the event loop is alive. Any thread.

        Args:
            until: The moment.
            seal: Whether no other grant counts until `unseal`, as while a call of team code must keep within its limit.
        """
        if is_forked():
            return
        with self._lock:
            if self._closed or self._sealed:
                return
            now = monotonic()
            gap = now - max(self._beaten, self._granted)
            if math.isfinite(gap) and gap >= self._gap_limit:
                return  # the event loop, which knows more, judges it
            self._until = until
            self._sealed = seal
            self._granted = now
            if now - self._beaten < TIMEOUT:
                self._hold(now, self._beaten)

    def unseal(self) -> None:
        """Let grants count again. Any thread."""
        self._sealed = False

    def withdraw(self) -> None:
        """Give the lease up now: the device process disables every device. Any thread; idempotent."""
        if is_forked():
            return
        with self._lock:
            self._until = -math.inf
            self._release()

    def restart(self) -> None:
        """Give the lease up because team code failed, and begin another with the next renewal. Any thread.

        Every device is disabled. It counts as a cut-off if the lease was held.
        """
        if is_forked():
            return
        with self._lock:
            self._fail()

    def fail(self) -> None:
        """Withdraw because a call of team code failed; it counts as a cut-off if the lease was held. Any thread."""
        if is_forked():
            return
        with self._lock:
            self._until = -math.inf
            self._fail()

    def cut_off(self, reason: str) -> None:
        """Withdraw because the team's code was late, and count it. Any thread."""
        self.withdraw()
        with self._lock:
            self._count(reason)

    def close(self) -> None:
        """Give the lease up for good: it cannot be granted again. Any thread."""
        self._closed = True
        self.withdraw()

    async def hand_over(self, within: float = HANDOVER) -> None:
        """Renew no more, and wait for the root to end the lease, ``within`` s at most; then give it up.

        The mode has ended by itself, and the root knows: a lease that the root ends has a reason, and one that is given up has none.
        """
        with self._lock:
            self._closed = True
            self._until = -math.inf
        with trio.move_on_after(within):
            while self._holding and not self._lease.revoked:  # noqa: ASYNC110 - the root ends it in shared memory
                await trio.sleep(_HANDOVER_PAUSE)
        self.close()

    def beat(self) -> None:
        """Show that the event loop is alive: renew if that is permitted, and give the lease up if the permission has run out."""
        if is_forked():
            return
        if self._run_delay is None:
            self._run_delay = self._make_run_delay()
            self._main_delay = self._make_main_delay()
        with self._lock:
            now, before = monotonic(), self._beaten
            waited, self._waited = self._waited, self._run_delay()
            self._beaten = now
            if self._main_grant != self._granted:
                self._main_grant = self._granted
                self._main_waited = self._main_delay()
            gap = now - max(before, self._granted)
            if math.isfinite(gap) and gap >= self._gap_limit and self._granted > -math.inf:
                self._judge(gap, self._waited - waited)
            elif now < self._until:
                self._hold(now, before, self._waited - waited)
            elif self._until > -math.inf:
                self._until = -math.inf
                self._release()
                is_busy = self._main_delay() - self._main_waited >= (now - self._granted) / 2
                self._count(_BUSY if is_busy else NOT_RETURNING)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Renew while it is permitted, until cancelled; then the lease is given up."""
        try:
            self.beat()
            task_status.started()
            while True:
                await trio.sleep(RENEW_INTERVAL)
                if is_forked():
                    os._exit(0)  # a copy of the event loop, forked by an action
                self.beat()
        finally:
            self.withdraw()

    def _hold(self, now: float, before: float, waited: float = 0.0) -> None:
        """Renew the lease or begin it.

        Args:
            now: The time (s).
            before: When the event loop was alive last.
            waited: How long (s) it has waited for a processor since then.
        """
        if self._closed:
            return
        if self._holding:
            if self._lease.renew():
                return
            self._holding = False
            if not self._lease.revoked:
                late = f"{_STARVED}, {waited:.1f} s" if waited >= (now - before) / 2 else _LATE
                self._root_late = now - before < TIMEOUT
                self._count(_ROOT_LATE if self._root_late else late)
            elif self._lease.cause not in DRIVER_BARS:
                self._end(_ENDED.get(self._lease.cause, STOPPED))
            if self._closed:
                return
        if self._root_late and not self._root_is_back():
            return
        if self._lease.begin():
            self._holding = True
            self._doorbell.ring()
            if self._is_cut_off:
                self._is_cut_off = False
                self._log.info(_AGAIN)

    def _root_is_back(self) -> bool:
        """Whether the root, whose silence ended the lease, gives signs of life and has not ended the mode."""
        if not self._lease.root_alive:
            return False
        self._root_late = False
        if self._lease.revoked and self._lease.cause not in DRIVER_BARS:  # before its first sign of life
            self._end(_ENDED.get(self._lease.cause, STOPPED))
        return not self._closed

    def _release(self) -> None:
        self._holding = False
        if self._lease.release():
            self._doorbell.ring()

    def _judge(self, gap: float, waited: float) -> None:
        """Decide on a gap (s) in which neither thread ran, and for so long (s) of which the event loop waited for a processor."""
        self._release()
        if waited >= gap / 2:
            self._count(f"{_STARVED}, {waited:.1f} s")
        else:
            self._end(f"{_STOOD_STILL} after {gap:.1f} s without a sign of life; start the mode again")

    def _fail(self) -> None:
        was_held = self._holding
        self._release()
        if was_held:
            self._count()

    def _count(self, reason: str = "") -> None:
        """Count a cut-off, and log it unless its reason is logged elsewhere; end the mode if it is one too many."""
        if reason:
            self._log.error(reason)
            self._is_cut_off = True
        if self._cutoffs.add(monotonic()):
            self._end("the team's code was cut off again and again; start the mode again")

    def _end(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._until = -math.inf
            self._release()
            self._on_end(reason)
