"""The states, events and effects of a child's state machine (`rt.supervisor.machine`)."""

from enum import StrEnum
from typing import Literal

import msgspec

from rt.errors import EmergencyStopException

EMERGENCY = EmergencyStopException.EXIT_CODE
"""The exit code of an emergency stop."""


class State(StrEnum):
    """The state of a child."""

    STOPPED = "stopped"
    SPAWNING = "spawning"
    ABORTING = "aborting"  # a stop was requested while the process is being started
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    KILLING = "killing"
    BACKOFF = "backoff"
    FAILED = "failed"


class Timer(StrEnum):
    """The timers of a child; at most one of each runs."""

    READY = "ready"
    WATCHDOG = "watchdog"
    HEALTHY = "healthy"
    GRACE = "grace"
    BACKOFF = "backoff"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The time limits and the restart policy of a child.

    With the defaults, a child that always fails is restarted every 2.5 to 5 s without end, because
    a robot in a match must keep trying. `max_restarts` is reached only with a smaller backoff.

    Attributes:
        ready_timeout: Time from the start until ready (s).
        stop_timeout: Time between SIGTERM or SIGABRT and SIGKILL (s).
        watchdog: Longest time between two watchdog notices of a ready child (s), or None.
        restart: ``permanent``: always; ``transient``: unless it exits with code 0; ``temporary``:
            never.
        fast_restarts: How many restarts in a row happen at once, before any backoff.
        backoff: Time before the first restart after these (s); doubles with each further one.
            Jitter subtracts up to half.
        backoff_cap: The longest backoff (s).
        healthy_after: Time in state ready after which fast restarts and the backoff are reset (s).
        max_restarts: The child fails when it exits unexpectedly more often than this within
            ``restart_window``.
        restart_window: The period for ``max_restarts`` (s).
        gives_up: Whether the child can fail. If not, it is restarted regardless of `max_restarts`
            and of errors that another attempt cannot resolve.
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
    """Start the child."""

    reason: str = "start"


class Stop(msgspec.Struct, frozen=True):
    """Stop the child; if ``final``, it is never started again."""

    reason: str
    final: bool = False


class Restart(msgspec.Struct, frozen=True):
    """Replace the process by a new one; ``planned`` if that is part of normal operation."""

    reason: str
    planned: bool = False


class Kill(Stop, frozen=True):
    """Kill the child at once; if ``final``, it is never started again."""


class NoRestart(msgspec.Struct, frozen=True):
    """Let the present process run, but never start another one; a stop will follow."""

    reason: str


class Spawned(msgspec.Struct, frozen=True):
    """The process has been started."""


class SpawnFailed(msgspec.Struct, frozen=True):
    """The process could not be started."""

    errno: int
    text: str


class Ready(msgspec.Struct, frozen=True):
    """The process is ready."""


class Alive(msgspec.Struct, frozen=True):
    """The process has sent a watchdog notice."""


class RestartRequested(msgspec.Struct, frozen=True):
    """The process requests to be treated as if its watchdog had expired."""


class Exited(msgspec.Struct, frozen=True):
    """The process has exited with a code, or was ended by the named signal."""

    code: int | None = None
    signal: str | None = None

    def describe(self) -> str:
        """Return a description such as ``exited with code 1``."""
        if self.signal is not None:
            return f"ended by {self.signal}"
        return (
            f"emergency stop (exit code {EMERGENCY})"
            if self.code == EMERGENCY
            else f"exited with code {self.code}"
        )


class TimerOver(msgspec.Struct, frozen=True):
    """A timer has expired."""

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
    """Start the process; answer with `Spawned` or `SpawnFailed`, and `Exited` in the end."""


class SendSignal(msgspec.Struct, frozen=True):
    """Send a signal to the process group."""

    signal: Literal["TERM", "ABRT", "KILL"]


class StartTimer(msgspec.Struct, frozen=True):
    """Start or restart a timer; answer with `TimerOver` when it expires."""

    timer: Timer
    seconds: float


class CancelTimer(msgspec.Struct, frozen=True):
    """Cancel a timer."""

    timer: Timer


class Report(msgspec.Struct, frozen=True):
    """Publish that the child has entered a state."""

    state: State
    reason: str


Effect = Spawn | SendSignal | StartTimer | CancelTimer | Report
