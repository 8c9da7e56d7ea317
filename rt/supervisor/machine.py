"""The state machine of one child: events in, effects out, without I/O.

Invariant:

- `rt.supervisor.transitions` lists all transitions.
- There is at most one process. It exists from `Spawn`, which is answered by `Spawned` or
  `SpawnFailed`, until `Exited`.
- A stop wins over a restart: after a stop, only a `Start` or `Restart` that arrives when no process
  is left starts the child again. After a final stop, nothing does.
- SIGKILL follows SIGTERM or SIGABRT and a grace period, unless `Kill` requests it.

The machine has no clock and no random numbers: the caller passes the time and the jitter.
"""

import errno
from collections import deque

from rt.errors import LocalProtocolError
from rt.supervisor.policy import Policy
from rt.supervisor.state import (
    CancelTimer,
    Effect,
    Event,
    Exited,
    Kill,
    NoRestart,
    Ready,
    Report,
    Restart,
    RestartRequested,
    SendSignal,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    StartTimer,
    State,
    Stop,
    Timer,
    TimerOver,
)
from rt.supervisor.transitions import RUNNING, TABLE, TIMERS, Action, Decision, Trigger

FINAL_ERRORS = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOEXEC,
        errno.EINVAL,
        errno.E2BIG,
    }
)
"""Errors at a start that another attempt cannot resolve."""


class Machine:
    """The state of one child, and the decision what to do next.

    Attributes:
        state: The state of the child.
        reason: The reason for the state, for the user.
        cause: Why the process is being stopped; empty if it was not asked to stop.
        restarts: How many restarts there were, without planned ones.
        planned: Whether the process is being stopped for a planned restart.
        closed: Whether the child is never started again.
    """

    def __init__(self, policy: Policy) -> None:
        self.state = State.STOPPED
        self.reason = "not started"
        self.cause = ""
        self.restarts = 0
        self.planned = False
        self.closed = False
        self._policy = policy
        self._attempts = 0
        self._exit_times: deque[float] = deque()
        self._wanted = False
        self._restart_requested = False
        self._kill_pending = False
        self._spawned_before = False

    def handle(self, event: Event, now: float, jitter: float = 0.0) -> list[Effect]:
        """Handle one event.

        Args:
            event: The event.
            now: The time (s); only differences count.
            jitter: Between 0 and 1: which part of half a backoff is subtracted.

        Returns:
            The effects, in the order in which to carry them out.

        Raises:
            LocalProtocolError: The event refers to a process that cannot exist.
        """
        self.closed |= isinstance(event, NoRestart) or (isinstance(event, Stop) and event.final)
        trigger = self._trigger(event, now)
        step = None if trigger is None else TABLE[self.state].get(trigger)
        if trigger is None or step is None:
            return []
        self._remember(event)
        before, (self.state, actions) = self.state, step
        if self.state is before:
            return [effect for action in actions for effect in self._perform(action)]
        self.reason = self._explain(event, trigger)
        effects: list[Effect] = [CancelTimer(timer) for timer in TIMERS.get(before, ())]
        effects += self._timers(jitter)
        effects += [effect for action in actions for effect in self._perform(action)]
        # Last, so that everything else is done when the report is delivered.
        effects.append(Report(self.state, self.reason))
        return effects

    def _trigger(self, event: Event, now: float) -> Trigger | None:
        match event:
            case Start() | Restart() if self.closed:
                return None
            case TimerOver(timer):
                return timer
            case RestartRequested():
                return Timer.WATCHDOG
            case Spawned() | SpawnFailed() if self.state not in (State.SPAWNING, State.ABORTING):
                raise LocalProtocolError(f"child in state {self.state} requested no process")
            case Exited() if self.state not in RUNNING:
                raise LocalProtocolError(f"child in state {self.state} has no process")
            case Spawned() if self._kill_pending:
                return Decision.SPAWNED_KILL_PENDING
            case SpawnFailed() | Exited():
                return self._ended(event, now)
            case _:
                return type(event)

    def _ended(self, event: SpawnFailed | Exited, now: float) -> Decision:
        if not self._wanted or self.closed:
            return Decision.ENDED
        if self._restart_requested:
            return Decision.ENDED_RESTART
        gives_up = self._policy.gives_up
        if gives_up and isinstance(event, SpawnFailed) and event.errno in FINAL_ERRORS:
            return Decision.ENDED_FAILED
        clean = isinstance(event, Exited) and event.code == 0 and not self.cause
        restart = self._policy.restart
        if restart == "temporary" or (restart == "transient" and clean):
            return Decision.ENDED if clean else Decision.ENDED_FAILED
        self._exit_times.append(now)
        while self._exit_times[0] <= now - self._policy.restart_window:
            self._exit_times.popleft()
        too_many = len(self._exit_times) > self._policy.max_restarts
        return Decision.ENDED_FAILED if gives_up and too_many else Decision.ENDED_RETRY

    def _remember(self, event: Event) -> None:
        match event:
            case Stop(reason):
                self._wanted = self._restart_requested = False
                self._kill_pending = self._kill_pending or isinstance(event, Kill)
                self.cause = reason
            case Restart(reason, planned):
                self._restart_requested, self.planned = True, planned
                self.cause = reason
            case TimerOver(Timer.READY):
                self.cause = f"not ready within {self._policy.ready_timeout:g} s"
            case TimerOver(Timer.WATCHDOG):
                self.cause = f"no watchdog notice for {self._policy.watchdog:g} s"
            case RestartRequested():
                self.cause = "requested its own restart"

    def _explain(self, event: Event, trigger: Trigger) -> str:  # noqa: PLR0911 - one per event
        match event:
            case Spawned():
                return self.cause or "process started"
            case Ready():
                return "ready"
            case TimerOver(Timer.GRACE):
                return f"did not stop within {self._policy.stop_timeout:g} s ({self.cause})"
            case TimerOver(Timer.BACKOFF):
                return "next attempt"
            case TimerOver() | RestartRequested():
                return self.cause
            case SpawnFailed(_, text):
                reason = f"cannot be started: {text}"
            case Exited():
                reason = event.describe() + (f" ({self.cause})" if self.cause else "")
            case _:
                return getattr(event, "reason", "")
        policy = self._policy
        if trigger is Decision.ENDED_FAILED and len(self._exit_times) > policy.max_restarts:
            reason += f"; more than {policy.max_restarts} restarts in {policy.restart_window:g} s"
        return reason

    def _timers(self, jitter: float) -> list[Effect]:
        durations = [(timer, self._seconds(timer, jitter)) for timer in TIMERS.get(self.state, ())]
        return [StartTimer(timer, seconds) for timer, seconds in durations if seconds is not None]

    def _seconds(self, timer: Timer, jitter: float) -> float | None:
        policy = self._policy
        match timer:
            case Timer.READY:
                return policy.ready_timeout
            case Timer.WATCHDOG:
                return policy.watchdog
            case Timer.HEALTHY:
                return policy.healthy_after
            case Timer.GRACE:
                return policy.stop_timeout
            case Timer.BACKOFF:
                slow = self._attempts - policy.fast_restarts
                self._attempts += 1
                if slow < 0:
                    return 0.0
                backoff = min(policy.backoff_cap, policy.backoff * 2.0 ** min(slow, 30))
                return backoff * (1 - jitter / 2)

    def _perform(self, action: Action | SendSignal) -> list[Effect]:
        match action:
            case Action.SPAWN:
                self.restarts += self._spawned_before and not self.planned
                self._spawned_before = True
                self._wanted = True
                self.planned = self._restart_requested = self._kill_pending = False
                self.cause = ""
                return [Spawn()]
            case SendSignal():
                return [action]
            case Action.PET_WATCHDOG:
                watchdog = self._policy.watchdog
                return [] if watchdog is None else [StartTimer(Timer.WATCHDOG, watchdog)]
            case Action.RESET_BACKOFF:
                self._attempts = 0
                return []
