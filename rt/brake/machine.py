"""The decisions of the brake: when to disable devices, kill the device process, and exit.

Invariants: the brake does nothing while the device process reports that nothing can move, unless it
stops; the death of the device process disables every line that it held; the brake exits only when
no line is left.

Pure: no clock and no I/O. Times are nanoseconds of the clock with which the device process stamps.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

MS: Final = 1_000_000
LATE: Final = 60 * MS
"""Age of the stamp at which devices are disabled; stamps are 20 ms apart while one can move."""
OVERDUE: Final = 10 * MS
"""Time after the leases' expiry for the device process to disable devices or see a renewal."""
RECHECK: Final = 20 * MS
"""Interval for checking a late device process, whose next stamp does not wake the brake."""
HUNG: Final = 1000 * MS
"""Age of the stamp at which a late device process is killed."""
KILL_GRACE: Final = 5 * MS
"""Time to wait for the exit of a killed process before writing to its lines regardless."""
DISABLE_GRACE: Final = 30 * MS
"""Time for the device process to disable its lines itself after the root exited."""
EXIT_GRACE: Final = 1000 * MS
"""Time for the device process to exit after it has disabled them."""
STOP_GRACE: Final = 200 * MS
"""Time for it to disable them when the brake is stopped while the root lives."""


class Act(Enum):
    """The next action of the brake."""

    DISABLE = auto()
    """Write DEV_DISABLE on every line, and keep the lines."""
    WARN = auto()
    """Notify the device process that its devices were disabled."""
    KILL = auto()
    """Send SIGKILL to the device process."""
    RELEASE = auto()
    """Write DEV_DISABLE on every line, then close the lines.

    Their process is dead, or continues without this brake (`Brake.still_used`).
    """
    EXIT = auto()
    """Exit."""


class Brake:
    """The state of the brake.

    Attributes:
        alive: Whether there is a device process that has not exited.
        reason: Why the last action was decided, for the log.
        repeats: Whether the last action repeats one with a known result, for example when a killed
            process exits.
        is_silent: Whether the last action is due because the device process has not stamped, and
            therefore has not written either.
        still_used: Whether a living process continues to use the lines that are released last.
    """

    def __init__(self) -> None:
        self.alive = False
        self.reason = ""
        self.repeats = False
        self.is_silent = False
        self.still_used = False
        self._handled_stamp = 0
        self._handled_expiry = 0
        self._checked = 0
        self._killed: int | None = None
        self._rewritten = False
        self._leaving_since: int | None = None
        self._root_exited = False

    @property
    def leaving(self) -> bool:
        """Whether the brake exits as soon as no line is left."""
        return self._leaving_since is not None

    def device_started(self) -> list[Act]:
        """Handle a new device process; an earlier one is dead, even if not reported yet."""
        acts = self.device_exited() if self.alive else []
        self.alive = True
        self._handled_stamp = self._handled_expiry = 0
        self._killed = None
        self._rewritten = self.repeats = self.still_used = False
        return acts

    def device_exited(self) -> list[Act]:
        """Handle the exit of the device process."""
        if not self.alive:
            return []
        self.alive = False
        self.reason = self.reason if self._killed is not None else "the device process ended"
        self.repeats = self._rewritten
        return [Act.RELEASE]

    def root_exited(self, now: int) -> None:
        """Handle the exit of the root."""
        if not self._root_exited:
            self._leaving_since, self._root_exited = now, True

    def stop(self, now: int) -> list[Act]:
        """Handle a request to stop while the root lives."""
        if self._leaving_since is not None:
            return []
        self._leaving_since = now
        self.reason = "the brake stops"
        return [Act.DISABLE, Act.WARN] if self.alive else []

    def check(
        self, now: int, stamp: int, lines: int, is_stopped: Callable[[], bool], expiry: int = 0
    ) -> list[Act]:
        """Return the actions that are due.

        Args:
            now: The time.
            stamp: The last heartbeat of the device process; 0 while no device can move.
            lines: The number of lines held, including those being released.
            is_stopped: Returns whether the device process cannot run: it is stopped, traced or
                dead. Called only when it is late.
            expiry: When the leases that the device process last saw expire; 0 for unknown.
        """
        self._checked = now
        if not self.alive:
            return [Act.EXIT] if self.leaving and not lines else []
        if self._killed is not None:
            return self._rewrite(now, self._killed)
        return self._check_living(now, stamp, lines, is_stopped, expiry)

    def _check_living(
        self, now: int, stamp: int, lines: int, is_stopped: Callable[[], bool], expiry: int
    ) -> list[Act]:
        """Return the actions for a living device process."""
        if (leave := self._leave_time(lines)) is not None and now >= leave:
            return self._leave(now)
        if not stamp:
            return []
        if now - stamp >= HUNG:
            return self._kill(now, "the device process hangs")
        self.is_silent = now >= stamp + LATE and stamp != self._handled_stamp
        if self.is_silent:
            self._handled_stamp = stamp
            self.reason = "the device process is late"
        elif expiry and now >= expiry + OVERDUE and expiry != self._handled_expiry:
            self.reason = "the device process did not disable devices when their lease ended"
        else:
            return []
        self._handled_expiry = expiry if now >= expiry else 0
        return (
            self._kill(now, "the device process is stopped")
            if is_stopped()
            else [Act.DISABLE, Act.WARN]
        )

    def due(self, stamp: int, lines: int, expiry: int = 0) -> int | None:
        """Return when `check` has to be called next if nothing happens before; None for never."""
        if not self.alive:
            return 0 if self.leaving and not lines else None
        if self._killed is not None:
            return None if self._rewritten else self._killed + KILL_GRACE
        times = [] if (leave := self._leave_time(lines)) is None else [leave]
        if stamp:
            times.append(
                min(stamp + HUNG, self._checked + RECHECK)
                if stamp == self._handled_stamp
                else stamp + LATE
            )
        if stamp and expiry and expiry != self._handled_expiry:
            times.append(expiry + OVERDUE)
        return min(times, default=None)

    def _leave(self, now: int) -> list[Act]:
        """Stop waiting for a device process that still lives."""
        if self._root_exited:
            return self._kill(now, "the device process outlived the root")
        self.alive = False  # the supervisor stops it, or another brake watches it
        self.still_used = True
        return [Act.RELEASE]

    def _rewrite(self, now: int, killed: int) -> list[Act]:
        """Write to the lines once if a killed process takes long to exit."""
        if now - killed < KILL_GRACE or self._rewritten:
            return []
        self._rewritten = True
        return [Act.DISABLE]

    def _kill(self, now: int, reason: str) -> list[Act]:
        self.reason = reason
        self._killed = now
        self._rewritten = False
        return [Act.KILL]

    def _leave_time(self, lines: int) -> int | None:
        """Return when a stopping brake no longer waits for the device process."""
        if self._leaving_since is None:
            return None
        if not self._root_exited:
            return self._leaving_since + (STOP_GRACE if lines else 0)
        return self._leaving_since + (DISABLE_GRACE if lines else EXIT_GRACE)
