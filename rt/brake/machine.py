"""The brake's decisions: when devices are disabled, when the device process is killed, and when the brake ends.

Invariants: no act is due while the device process says that nothing can move, unless the brake
leaves; the death of the device process disables every line that it held; the brake ends only when
no line is left.

Pure: no clock and no input or output. Times are nanoseconds of the clock by which the device
    process stamps.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

MS: Final = 1_000_000
LATE: Final = 60 * MS
"""Age of the device process's stamp at which devices are disabled; it stamps every 20 ms while one can move."""
OVERDUE: Final = 10 * MS
"""How long after the end of its permission the device process may need to disable devices or to see the permission renewed."""
RECHECK: Final = 20 * MS
"""How soon the brake looks again at a device process that was late, whose next stamp does not wake it."""
HUNG: Final = 1000 * MS
"""Age of the stamp at which a device process that was disabled over is killed."""
KILL_GRACE: Final = 5 * MS
"""How long the end of a killed process is waited for before the lines are written nevertheless."""
DISABLE_GRACE: Final = 30 * MS
"""How long the device process may take to disable its lines by itself when the root is gone."""
EXIT_GRACE: Final = 1000 * MS
"""How long it may take to end when it has disabled them."""
STOP_GRACE: Final = 200 * MS
"""How long it may take to disable them when the brake is to stop while the root is there."""


class Act(Enum):
    """What the brake does next."""

    DISABLE = auto()
    """Write DEV_DISABLE on every line, and keep the lines."""
    WARN = auto()
    """Tell the device process that its devices were disabled."""
    KILL = auto()
    """Send SIGKILL to the device process."""
    FINISH = auto()
    """Write DEV_DISABLE on every line, and give the lines up: their process is dead, or goes on without this brake (`Brake.shared`)."""
    EXIT = auto()
    """End the brake."""


class Brake:
    """The state of the brake.

    Attributes:
        alive: Whether there is a device process that has not ended.
        reason: Why the last act was decided, as a fact for the log.
        repeats: Whether the last act repeats one whose outcome is known, as at the end of a process
            that was killed.
        is_silent: Whether the last act is due because the device process has not stamped, so that
            it has not written either.
        shared: Whether the lines that are given up last are those of a process that lives and goes
            on to use them.
    """

    def __init__(self) -> None:
        self.alive = False
        self.reason = ""
        self.repeats = False
        self.is_silent = False
        self.shared = False
        self._acted = 0
        self._ended = 0
        self._looked = 0
        self._killed: int | None = None
        self._rewritten = False
        self._left: int | None = None
        self._rootless = False

    @property
    def leaving(self) -> bool:
        """Whether the brake ends as soon as no line is left."""
        return self._left is not None

    def hello(self) -> list[Act]:
        """A device process has introduced itself; an earlier one is dead, however late the kernel says so."""
        acts = self.died() if self.alive else []
        self.alive = True
        self._acted = self._ended = 0
        self._killed = None
        self._rewritten = self.repeats = self.shared = False
        return acts

    def died(self) -> list[Act]:
        """The device process has ended."""
        if not self.alive:
            return []
        self.alive = False
        self.reason = self.reason if self._killed is not None else "the device process ended"
        self.repeats = self._rewritten
        return [Act.FINISH]

    def root_gone(self, now: int) -> None:
        """The root has ended."""
        if not self._rootless:
            self._left, self._rootless = now, True

    def stop(self, now: int) -> list[Act]:
        """The brake is to stop, while the root is there."""
        if self._left is not None:
            return []
        self._left = now
        self.reason = "the brake stops"
        return [Act.DISABLE, Act.WARN] if self.alive else []

    def look(
        self, now: int, stamp: int, lines: int, is_stopped: Callable[[], bool], end: int = 0
    ) -> list[Act]:
        """Decide what is due.

        Args:
            now: The time.
            stamp: When the device process last said that it is alive; 0 while no device can move.
            lines: How many lines are held, those that are being given up included.
            is_stopped: Whether the device process cannot run: it is stopped, traced or dead. Asked
                only when it is late.
            end: When the permission to move ends that the device process saw last; 0 if that is not
                known.
        """
        self._looked = now
        if not self.alive:
            return [Act.EXIT] if self.leaving and not lines else []
        if self._killed is not None:
            return self._rewrite(now, self._killed)
        return self._judge(now, stamp, lines, is_stopped, end)

    def _judge(
        self, now: int, stamp: int, lines: int, is_stopped: Callable[[], bool], end: int
    ) -> list[Act]:
        """Decide on a device process that lives."""
        if (leave := self._end(lines)) is not None and now >= leave:
            return self._leave(now)
        if not stamp:
            return []
        if now - stamp >= HUNG:
            return self._kill(now, "the device process hangs")
        self.is_silent = now >= stamp + LATE and stamp != self._acted
        if self.is_silent:
            self._acted = stamp
            self.reason = "the device process is late"
        elif end and now >= end + OVERDUE and end != self._ended:
            self.reason = "the device process did not disable devices when their lease ended"
        else:
            return []
        self._ended = end if now >= end else 0
        return (
            self._kill(now, "the device process is stopped")
            if is_stopped()
            else [Act.DISABLE, Act.WARN]
        )

    def due(self, stamp: int, lines: int, end: int = 0) -> int | None:
        """When `look` has something to decide next if nothing happens before; None for never."""
        if not self.alive:
            return 0 if self.leaving and not lines else None
        if self._killed is not None:
            return None if self._rewritten else self._killed + KILL_GRACE
        times = [] if (leave := self._end(lines)) is None else [leave]
        if stamp:
            times.append(
                min(stamp + HUNG, self._looked + RECHECK) if stamp == self._acted else stamp + LATE
            )
        if stamp and end and end != self._ended:
            times.append(end + OVERDUE)
        return min(times, default=None)

    def _leave(self, now: int) -> list[Act]:
        """Wait no longer for a device process that still lives."""
        if self._rootless:
            return self._kill(now, "the device process outlived the root")
        self.alive = False  # the supervisor ends it, or another brake watches it
        self.shared = True
        return [Act.FINISH]

    def _rewrite(self, now: int, killed: int) -> list[Act]:
        """Write to the lines once when the end of a process that was killed takes long."""
        if now - killed < KILL_GRACE or self._rewritten:
            return []
        self._rewritten = True
        return [Act.DISABLE]

    def _kill(self, now: int, reason: str) -> list[Act]:
        self.reason = reason
        self._killed = now
        self._rewritten = False
        return [Act.KILL]

    def _end(self, lines: int) -> int | None:
        """When a brake that leaves waits no longer for the device process."""
        if self._left is None:
            return None
        if not self._rootless:
            return self._left + (STOP_GRACE if lines else 0)
        return self._left + (DISABLE_GRACE if lines else EXIT_GRACE)
