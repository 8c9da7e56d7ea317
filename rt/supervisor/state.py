"""The words of a child's life: its states, what may happen to it, and what is to be done then.

Pure: plain values that `rt.supervisor.machine` takes and gives.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from rt.errors import EmergencyStopException

EMERGENCY = EmergencyStopException.EXIT_CODE
"""The exit code of a process that ended in an emergency stop."""


class State(StrEnum):
    """Where a child stands."""

    STOPPED = "stopped"
    SPAWNING = "spawning"
    ABORTING = "aborting"  # a stop was asked for while the process is being made
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    KILLING = "killing"
    BACKOFF = "backoff"
    FAILED = "failed"


class Timer(StrEnum):
    """What a child may wait for; at most one of each runs."""

    READY = "ready"
    WATCHDOG = "watchdog"
    HEALTHY = "healthy"
    GRACE = "grace"
    BACKOFF = "backoff"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How long a child may take, and whether it comes back.

    With the defaults a child that always fails is tried again every 2.5 to 5 s for ever, since a
    robot in a match goes on trying; the restart intensity is reached only where a smaller back-off
    lets it.

    Attributes:
        ready_timeout: Seconds from the start until ready.
        stop_timeout: Seconds between the polite signal and SIGKILL.
        watchdog: Seconds within which a ready child has to say that it is alive, or None.
        restart: ``permanent``: always; ``transient``: unless it exits with code 0; ``temporary``:
            never.
        fast_restarts: How many restarts in a row follow at once, before any back-off.
        backoff: Seconds before the first restart after these; each further one doubles it. Jitter
            takes off up to half.
        backoff_cap: The longest back-off in seconds.
        healthy_after: Seconds of being ready after which fast restarts and the back-off begin anew.
        max_restarts: The restart intensity: more unexpected ends than this ...
        restart_window: ... within so many seconds, and the child has failed.
        gives_up: Whether the child can fail at all. If not, neither the restart intensity nor an
            error of its start that another try cannot mend ends the tries.
    """

    ready_timeout: float = 10.0
    stop_timeout: float = 2.0
    watchdog: float | None = None
    restart: Literal["permanent", "transient", "temporary"] = "permanent"
    fast_restarts: int = 0
    backoff: float = 0.1
    backoff_cap: float = 5.0
    healthy_after: float = 2.0
    max_restarts: int = 30
    restart_window: float = 60.0
    gives_up: bool = True


# Events.


class Start(msgspec.Struct, frozen=True):
    """The child is wanted."""

    reason: str = "start"


class Stop(msgspec.Struct, frozen=True):
    """The child is not wanted; ``final`` means never again."""

    reason: str
    final: bool = False


class Restart(msgspec.Struct, frozen=True):
    """The child is wanted, as a new process; ``planned`` if that is part of its work, and no repair."""

    reason: str
    planned: bool = False


class Kill(msgspec.Struct, frozen=True):
    """The child is not wanted, now; never again if ``final``."""

    reason: str
    final: bool = False


class NoRestart(msgspec.Struct, frozen=True):
    """The child may end its present life, but never gets another one: its turn to be stopped will come."""

    reason: str


class Spawned(msgspec.Struct, frozen=True):
    """The process that was asked for exists."""


class SpawnFailed(msgspec.Struct, frozen=True):
    """The process that was asked for could not be made."""

    errno: int
    text: str


class Ready(msgspec.Struct, frozen=True):
    """The process has started up."""


class Alive(msgspec.Struct, frozen=True):
    """The process says that it is alive."""


class RestartRequested(msgspec.Struct, frozen=True):
    """The process asks to be treated as if its watchdog had run out."""


class Exited(msgspec.Struct, frozen=True):
    """The process has ended: with an exit code, or else by a signal of this name."""

    code: int | None = None
    signal: str | None = None

    def describe(self) -> str:
        """How it ended, e.g. ``exited with code 1``."""
        if self.signal is not None:
            return f"ended by {self.signal}"
        return (
            f"emergency stop (exit code {EMERGENCY})"
            if self.code == EMERGENCY
            else f"exited with code {self.code}"
        )


class TimerOver(msgspec.Struct, frozen=True):
    """A timer that was started, and not cancelled, has run out."""

    timer: Timer


Event = (
    Start
    | Stop
    | Restart
    | Kill
    | NoRestart
    | Spawned
    | SpawnFailed
    | Ready
    | Alive
    | RestartRequested
    | Exited
    | TimerOver
)


# Effects.


class Spawn(msgspec.Struct, frozen=True):
    """Make the process; answer with `Spawned` or `SpawnFailed`, and `Exited` in the end."""


class SendSignal(msgspec.Struct, frozen=True):
    """Send a signal to the whole group of the process."""

    signal: Literal["TERM", "ABRT", "KILL"]


class StartTimer(msgspec.Struct, frozen=True):
    """Start a timer, or start it anew; answer with `TimerOver` when it has run out."""

    timer: Timer
    seconds: float


class CancelTimer(msgspec.Struct, frozen=True):
    """Forget a timer."""

    timer: Timer


class Report(msgspec.Struct, frozen=True):
    """The child has come to a state, for this reason."""

    state: State
    reason: str


Effect = Spawn | SendSignal | StartTimer | CancelTimer | Report
