"""One child's life, pure: events in, effects out.

Rules:

- What may follow what stands in `rt.supervisor.transitions`, and nowhere else.
- There is at most one process. It exists from `Spawn` (answered by `Spawned` or `SpawnFailed`)
until `Exited`.
- In every race between a stop and a restart the stop wins: once a stop is wanted, only a later
  `Start` or `Restart` that finds no process left can bring the child back, and after a final stop
  nothing can.
- SIGKILL follows a polite signal and a grace, except where `Kill` asks for it at once.

The machine has no clock and no dice: the time comes in with each event, and the jitter as a number
between 0 and 1.
"""

import errno
from collections import deque
from collections.abc import Mapping

from rt.errors import LocalProtocolError
from rt.supervisor.state import (
    Alive,
    CancelTimer,
    Effect,
    Event,
    Exited,
    Kill,
    NoRestart,
    Policy,
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
from rt.supervisor.transitions import RUNNING, TABLE, TIMERS, Act, Trigger

FINAL_ERRORS = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
    | {errno.ENOEXEC, errno.EINVAL, errno.E2BIG}
)
"""Errors of a start that another try cannot mend."""


_ON_TIMER = {
    Timer.READY: Trigger.READY_TIMEOUT,
    Timer.WATCHDOG: Trigger.WATCHDOG_TIMEOUT,
    Timer.HEALTHY: Trigger.HEALTHY,
    Timer.GRACE: Trigger.GRACE_OVER,
    Timer.BACKOFF: Trigger.BACKOFF_OVER,
}
_ON_WORD: Mapping[type, Trigger] = {
    Stop: Trigger.STOP,
    Kill: Trigger.KILL,
    NoRestart: Trigger.NO_RESTART,
    Ready: Trigger.READY,
    Alive: Trigger.ALIVE,
    RestartRequested: Trigger.WATCHDOG_TIMEOUT,
}


class Machine:
    """Holds where one child stands, and decides what is to be done next.

    Attributes:
        state: Where the child stands.
        reason: Why, in words for a person.
        cause: Why the process that exists is being stopped; empty when nobody asked it to end.
        restarts: How often a process was followed by another one, but for planned restarts.
        planned: Whether the process that exists is being stopped by a planned restart.
    """

    def __init__(self, policy: Policy) -> None:
        self.state = State.STOPPED
        self.reason = "not started"
        self.cause = ""
        self.restarts = 0
        self.planned = False
        self._policy = policy
        self._attempts = 0
        self._ends: deque[float] = deque()
        self._wanted = False
        self._renew = False
        self._kill_pending = False
        self._closed = False
        self._spawned_before = False

    @property
    def closed(self) -> bool:
        """Whether the child gets no further process."""
        return self._closed

    def handle(self, event: Event, now: float, jitter: float = 0.0) -> list[Effect]:
        """Take one event and say what follows from it.

        Args:
            event: What has happened.
            now: The time in seconds; only differences count.
            jitter: Between 0 and 1: how much of half a back-off is taken off.

        Returns:
            What is to be done, in this order.

        Raises:
            LocalProtocolError: The event tells of a process that cannot exist.
        """
        self._closed |= isinstance(event, NoRestart) or (
            isinstance(event, Stop | Kill) and event.final
        )
        trigger = self._trigger(event, now)
        step = None if trigger is None else TABLE[self.state].get(trigger)
        if trigger is None or step is None:
            return []
        self._remember(event)
        before, (self.state, acts) = self.state, step
        if self.state is before:
            return [effect for act in acts for effect in self._perform(act)]
        self.reason = self._explain(event, trigger)
        effects: list[Effect] = [CancelTimer(timer) for timer in TIMERS.get(before, ())]
        effects += self._timers(jitter)
        effects += [effect for act in acts for effect in self._perform(act)]
        # Last, so that whoever hears of it finds everything else done.
        effects.append(Report(self.state, self.reason))
        return effects

    def _trigger(self, event: Event, now: float) -> Trigger | None:
        match event:
            case Start() | Restart():
                asked = Trigger.START if isinstance(event, Start) else Trigger.RESTART
                return None if self._closed else asked
            case TimerOver(timer):
                return _ON_TIMER[timer]
            case Spawned() | SpawnFailed() if self.state not in (State.SPAWNING, State.ABORTING):
                raise LocalProtocolError(
                    f"a child that is {self.state} has not asked for a process"
                )
            case Exited() if self.state not in RUNNING:
                raise LocalProtocolError(
                    f"a child that is {self.state} has no process that could exit"
                )
            case Spawned():
                return Trigger.SPAWNED_KILL_PENDING if self._kill_pending else Trigger.SPAWNED
            case SpawnFailed() | Exited():
                return self._gone(event, now)
            case _:
                return _ON_WORD[type(event)]

    def _gone(self, event: SpawnFailed | Exited, now: float) -> Trigger:
        if not self._wanted or self._closed:
            return Trigger.GONE
        if self._renew:
            return Trigger.GONE_RENEW
        gives_up = self._policy.gives_up
        if gives_up and isinstance(event, SpawnFailed) and event.errno in FINAL_ERRORS:
            return Trigger.GONE_FAILED
        clean = isinstance(event, Exited) and event.code == 0 and not self.cause
        restart = self._policy.restart
        if restart == "temporary" or (restart == "transient" and clean):
            return Trigger.GONE if clean else Trigger.GONE_FAILED
        self._ends.append(now)
        while self._ends[0] <= now - self._policy.restart_window:
            self._ends.popleft()
        too_many = len(self._ends) > self._policy.max_restarts
        return Trigger.GONE_FAILED if gives_up and too_many else Trigger.GONE_RETRY

    def _remember(self, event: Event) -> None:
        match event:
            case Stop(reason) | Kill(reason):
                self._wanted = self._renew = False
                self._kill_pending = self._kill_pending or isinstance(event, Kill)
                self.cause = reason
            case Restart(reason, planned):
                self._renew, self.planned = True, planned
                self.cause = reason
            case TimerOver(Timer.READY):
                self.cause = f"not ready within {self._policy.ready_timeout:g} s"
            case TimerOver(Timer.WATCHDOG):
                self.cause = f"not a sign of life for {self._policy.watchdog:g} s"
            case RestartRequested():
                self.cause = "asked for its own restart"

    def _explain(self, event: Event, trigger: Trigger) -> str:  # noqa: PLR0911 - one answer for each kind of event
        match event:
            case Spawned():
                return self.cause or "process started"
            case Ready():
                return "ready"
            case TimerOver(Timer.GRACE):
                return (
                    f"still there {self._policy.stop_timeout:g} s after the signal ({self.cause})"
                )
            case TimerOver(Timer.BACKOFF):
                return "another try"
            case TimerOver() | RestartRequested():
                return self.cause
            case SpawnFailed(_, text):
                ending = f"cannot be started: {text}"
            case Exited():
                ending = event.describe() + (f" ({self.cause})" if self.cause else "")
            case _:
                return getattr(event, "reason", "")
        if trigger is Trigger.GONE_FAILED and len(self._ends) > self._policy.max_restarts:
            ending += f"; more than {self._policy.max_restarts} restarts within {self._policy.restart_window:g} s"
        return ending

    def _timers(self, jitter: float) -> list[Effect]:
        effects: list[Effect] = []
        for timer in TIMERS.get(self.state, ()):
            seconds = self._seconds(timer, jitter)
            if seconds is not None:
                effects.append(StartTimer(timer, seconds))
        return effects

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
                return (
                    0.0
                    if slow < 0
                    else min(policy.backoff_cap, policy.backoff * 2.0 ** min(slow, 30))
                    * (1 - jitter / 2)
                )

    def _perform(self, act: Act) -> list[Effect]:
        match act:
            case Act.SPAWN:
                self.restarts += self._spawned_before and not self.planned
                self._spawned_before = True
                self.planned = False
                self._wanted, self._renew, self._kill_pending, self.cause = True, False, False, ""
                return [Spawn()]
            case Act.TERM:
                return [SendSignal("TERM")]
            case Act.ABORT:
                return [SendSignal("ABRT")]
            case Act.KILL:
                return [SendSignal("KILL")]
            case Act.PET_WATCHDOG:
                watchdog = self._policy.watchdog
                return [] if watchdog is None else [StartTimer(Timer.WATCHDOG, watchdog)]
            case Act.RESET_BACKOFF:
                self._attempts = 0
                return []
