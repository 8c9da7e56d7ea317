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
