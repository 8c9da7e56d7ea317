"""The executor's lease, renewed while its threads are alive and team code keeps its time limits.

Before each call of team code, the main thread permits the lease until a deadline. The event loop
renews the lease until that deadline. A hung main thread lets the permission expire, a hung event
loop stops renewing, and a dead process does both. In each case the device process disables every
device: at once, or when the last stamp is older than the lease's timeout.

Invariant: a lease that lapsed is not just renewed. Each lapse is a cut-off, which is logged.
Repeated cut-offs make the robot move in pulses, which a person cannot stop in time, so they end the
mode.
Invariant: a gap in which neither thread ran, for example because the process was stopped, ends the
mode, except that a gap in which the process waited for a processor is an ordinary cut-off.
Invariant: a lease that the root revoked is not begun again.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

import trio

from rt import log
from rt.buffer import Lease
from rt.buffer.lease import DRIVER_BARS, Bar
from rt.buffer.write_event import WriteEvent
from rt.diagnostics.run_delay import RunDelay
from rt.executor.fork import is_forked

RENEW_INTERVAL: Final = 0.02
"""Time between two renewals, in s; the lease survives four missed ones."""
GAP_LIMIT: Final = 0.4
"""Maximum time in which neither thread runs without ending the mode, in s."""
REVOKE_LIMIT: Final = 0.05
"""How long a mode that has ended by itself waits for the root to revoke its lease, in s."""
_REVOKE_POLL: Final = 0.001
CUTOFFS: Final = 5
"""How many cut-offs end a mode, unless the option sets another number."""
CUTOFF_WINDOW: Final = 10.0
"""Time in s within which cut-offs are counted together."""

STOPPED: Final = "the robot was stopped"
"""Why a mode ends if the root has revoked its lease."""
NO_BRAKE: Final = "the robot's brake is not ready: see `rt call status`"
"""Why a mode ends if the root barred its slot because no brake is ready."""
_END_REASONS: Final = {
    Bar.BRAKE: NO_BRAKE,
    Bar.DAMAGED: "the robot's shared memory was overwritten",
    Bar.STALLED: "the robot's main process was suspended: start the mode again",
}
"""Why a mode ends, by the cause that the root gave; else `STOPPED`."""

NOT_RETURNING: Final = "team code does not return: every device is disabled until it does"
"""Why a late call is cut off."""

_BUSY: Final = f"the computer is busy: {NOT_RETURNING}"
_RESUMED: Final = "team code moves devices again"
_LOOP_LATE: Final = "the executor's event loop was late: every device was disabled"
_ROOT_LATE: Final = (
    "the robot's main process does not respond: every device is disabled until it does"
)
_SUSPENDED: Final = "the executor was stopped or kept from running: every device was disabled"
_STARVED: Final = (
    "the computer is busy: the executor waited for a processor, and every device was disabled"
)


class LeaseKeeper:
    """The executor's lease, and its permission: the time until which it may be renewed.

    Args:
        lease: The executor's slot of the lease table.
        write_event: Signalled when the lease begins and ends, which wakes the device process.
        cutoffs: How many cut-offs within 10 s end the mode.
        gap_limit: See `GAP_LIMIT`.
        clock: Returns the time in s, of the monotonic clock.
        run_delay: Returns how long the event loop's thread has waited for a processor, in s. By
            default, that is the thread that creates the keeper.
        main_delay: Returns the same for the main thread.

    Attributes:
        on_end: Called with the reason, in any thread and at most once, when the mode must end. The
            lease cannot be granted after that.
    """

    def __init__(
        self,
        lease: Lease,
        write_event: WriteEvent,
        *,
        cutoffs: int = CUTOFFS,
        gap_limit: float = GAP_LIMIT,
        clock: Callable[[], float] = monotonic,
        run_delay: Callable[[], float] | None = None,
        main_delay: Callable[[], float] | None = None,
    ) -> None:
        self._lease = lease
        self._write_event = write_event
        self._cutoffs = CutoffCounter(cutoffs)
        self.on_end: Callable[[str], None] = lambda _reason: None
        self._gap_limit = gap_limit
        self._clock = clock
        self._run_delay = run_delay or RunDelay().read
        self._waited = 0.0
        self._main_delay = main_delay or RunDelay(os.getpid()).read
        self._main_grant = -math.inf
        self._main_waited = 0.0
        self._root_late = False
        self._is_cut_off = False
        self._permitted_until = -math.inf
        self._last_heartbeat = -math.inf
        self._last_grant = -math.inf
        self._holding = False
        self._sealed = False
        self._closed = False
        self._lock = threading.Lock()
        self._log = log.get_logger()

    @property
    def permitted(self) -> bool:
        """Whether the lease may be held now."""
        return self._clock() < self._permitted_until

    def grant(self, until: float = math.inf, *, seal: bool = False) -> None:
        """Permit the lease until a time, and hold it if the event loop is alive. Thread-safe.

        Args:
            until: The time in s, of the monotonic clock.
            seal: Whether to ignore further grants until `unseal`, while a call of team code must
                keep its time limit.
        """
        if is_forked():
            return
        with self._lock:
            if self._closed or self._sealed:
                return
            now = self._clock()
            gap = now - max(self._last_heartbeat, self._last_grant)
            if math.isfinite(gap) and gap >= self._gap_limit:
                return  # the next heartbeat handles the gap
            self._permitted_until = until
            self._sealed = seal
            self._last_grant = now
            if now - self._last_heartbeat < self._lease.timeout:
                self._hold(now, self._last_heartbeat)

    def unseal(self) -> None:
        """Accept grants again. Thread-safe."""
        self._sealed = False

    def revoke(self) -> None:
        """End the permission and the lease; every device is disabled. Thread-safe; idempotent."""
        if is_forked():
            return
        with self._lock:
            self._permitted_until = -math.inf
            self._release()

    def restart(self) -> None:
        """End the lease because team code failed; the next renewal begins another. Thread-safe.

        Every device is disabled. It counts as a cut-off if the lease was held.
        """
        if is_forked():
            return
        with self._lock:
            self._fail()

    def fail(self) -> None:
        """End the permission and the lease because a call of team code failed. Thread-safe.

        It counts as a cut-off if the lease was held.
        """
        if is_forked():
            return
        with self._lock:
            self._permitted_until = -math.inf
            self._fail()

    def cut_off(self, reason: str) -> None:
        """End the permission and the lease because team code was late. Thread-safe.

        It counts as a cut-off.
        """
        self.revoke()
        with self._lock:
            self._count_cutoff(reason)

    def close(self) -> None:
        """End the lease for good: it cannot be granted again. Thread-safe."""
        with self._lock:
            self._closed = True
        self.revoke()

    async def wait_revoked(self, within: float = REVOKE_LIMIT) -> None:
        """Stop renewing, wait until the root revokes the lease, and close.

        The mode has ended by itself and the root knows it. A lease that the root revokes has a
        reason in the log; a lease that is released has none.

        Args:
            within: The longest wait in s.
        """
        with self._lock:
            self._closed = True
            self._permitted_until = -math.inf
        with trio.move_on_after(within):
            while self._holding and not self._lease.revoked:  # noqa: ASYNC110 - shared memory
                await trio.sleep(_REVOKE_POLL)
        self.close()

    def heartbeat(self) -> None:
        """Record that the event loop is alive.

        Renews the lease, or ends it if the permission has expired.
        """
        if is_forked():
            return
        with self._lock:
            now, before = self._clock(), self._last_heartbeat
            waited, self._waited = self._waited, self._run_delay()
            self._last_heartbeat = now
            if self._main_grant != self._last_grant:
                self._main_grant = self._last_grant
                self._main_waited = self._main_delay()
            gap = now - max(before, self._last_grant)
            if math.isfinite(gap) and gap >= self._gap_limit and self._last_grant > -math.inf:
                self._handle_gap(gap, self._waited - waited)
            elif now < self._permitted_until:
                self._hold(now, before, self._waited - waited)
            elif self._permitted_until > -math.inf:
                self._permitted_until = -math.inf
                self._release()
                is_busy = self._main_delay() - self._main_waited >= (now - self._last_grant) / 2
                self._count_cutoff(_BUSY if is_busy else NOT_RETURNING)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send heartbeats until cancelled; then end the lease."""
        try:
            self.heartbeat()
            task_status.started()
            while True:
                await trio.sleep(RENEW_INTERVAL)
                if is_forked():
                    os._exit(0)  # an action forked the event loop
                self.heartbeat()
        finally:
            self.revoke()

    def _hold(self, now: float, before: float, waited: float = 0.0) -> None:
        """Renew or begin the lease.

        Args:
            now: The time in s.
            before: The time of the last heartbeat in s.
            waited: How long the event loop waited for a processor since then, in s.
        """
        if self._holding:
            if self._lease.renew():
                return
            self._holding = False
            if not self._lease.revoked:
                late = f"{_STARVED}, {waited:.1f} s" if waited >= (now - before) / 2 else _LOOP_LATE
                self._root_late = now - before < self._lease.timeout
                self._count_cutoff(_ROOT_LATE if self._root_late else late)
            elif self._lease.cause not in DRIVER_BARS:
                self._end(_END_REASONS.get(self._lease.cause, STOPPED))
            if self._closed:
                return
        if self._root_late and not self._root_is_back():
            return
        if self._lease.begin():
            self._holding = True
            self._write_event.signal()
            if self._is_cut_off:
                self._is_cut_off = False
                self._log.info(_RESUMED)

    def _root_is_back(self) -> bool:
        """Return whether the root's heartbeat is back and the root has not ended the mode."""
        if not self._lease.root_alive:
            return False
        self._root_late = False
        # The root revokes before its first heartbeat.
        if self._lease.revoked and self._lease.cause not in DRIVER_BARS:
            self._end(_END_REASONS.get(self._lease.cause, STOPPED))
        return not self._closed

    def _release(self) -> None:
        self._holding = False
        if self._lease.release():
            self._write_event.signal()

    def _handle_gap(self, gap: float, waited: float) -> None:
        """Count or end after a gap in which neither thread ran.

        Args:
            gap: The gap in s.
            waited: How long the event loop waited for a processor in it, in s.
        """
        self._release()
        if waited >= gap / 2:
            self._count_cutoff(f"{_STARVED}, {waited:.1f} s")
        else:
            self._end(f"{_SUSPENDED} after {gap:.1f} s without a heartbeat; start the mode again")

    def _fail(self) -> None:
        was_held = self._holding
        self._release()
        if was_held:
            self._count_cutoff()

    def _count_cutoff(self, reason: str = "") -> None:
        """Count a cut-off, log its reason if given, and end the mode if it is one too many."""
        if reason:
            self._log.error(reason)
            self._is_cut_off = True
        if self._cutoffs.add(self._clock()):
            self._end("team code was cut off too often: start the mode again")

    def _end(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._permitted_until = -math.inf
            self._release()
            self.on_end(reason)


class CutoffCounter:
    """Counts the cut-offs of one mode, the moments at which the devices were disabled.

    Args:
        limit: How many cut-offs within `CUTOFF_WINDOW` end the mode.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times: deque[float] = deque()

    def add(self, now: float) -> bool:
        """Count a cut-off.

        Args:
            now: The time in s, of a monotonic clock.

        Returns:
            Whether it ends the mode.
        """
        self._times.append(now)
        while self._times[0] <= now - CUTOFF_WINDOW:
            self._times.popleft()
        return len(self._times) >= self._limit
