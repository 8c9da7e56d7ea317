"""The transition table of a child's state machine.

Each entry maps a state and a trigger to the next state and its actions. A pair without an entry
changes nothing. A stop wins over a restart because the table has no `Start` and no `Restart`
for a child that is stopping.
"""

from collections.abc import Mapping
from enum import Enum, auto

from rt.supervisor.state import (
    Alive,
    Event,
    Kill,
    NoRestart,
    Ready,
    Restart,
    SendSignal,
    Spawned,
    Start,
    State,
    Stop,
    Timer,
)


class Decision(Enum):
    """The meaning of an event for the table, where the policy or an earlier request decides it."""

    SPAWNED_KILL_PENDING = auto()  # a kill was requested in the meantime
    ENDED = auto()  # stopped, or exited as it should
    ENDED_RESTART = auto()  # a restart was requested
    ENDED_RETRY = auto()  # wanted: restart after a backoff
    ENDED_FAILED = auto()  # wanted, but the policy permits no restart


class Action(Enum):
    """What a transition does besides sending signals and starting and cancelling timers."""

    SPAWN = auto()
    RESET_BACKOFF = auto()
    PET_WATCHDOG = auto()


S, D, A = State, Decision, Action
TERM, ABORT, KILL = SendSignal("TERM"), SendSignal("ABRT"), SendSignal("KILL")
Trigger = type[Event] | Timer | Decision
"""What causes a transition: an event, by its type, a timer that has expired, or a decision."""
Steps = Mapping[Trigger, tuple[State, tuple[Action | SendSignal, ...]]]

_ENDED: Steps = {
    D.ENDED: (S.STOPPED, ()),
    D.ENDED_RESTART: (S.SPAWNING, (A.SPAWN,)),
    D.ENDED_RETRY: (S.BACKOFF, ()),
    D.ENDED_FAILED: (S.FAILED, ()),
}
_AT_REST: Steps = {
    Start: (S.SPAWNING, (A.SPAWN,)),
    Restart: (S.SPAWNING, (A.SPAWN,)),
    Stop: (S.STOPPED, ()),
    Kill: (S.STOPPED, ()),
}
_REQUESTS: Steps = {
    Stop: (S.STOPPING, (TERM,)),
    Restart: (S.STOPPING, (TERM,)),
    Kill: (S.KILLING, (KILL,)),
}

TABLE: Mapping[State, Steps] = {
    S.STOPPED: _AT_REST,
    S.FAILED: _AT_REST,
    S.BACKOFF: {**_AT_REST, NoRestart: (S.STOPPED, ()), Timer.BACKOFF: (S.SPAWNING, (A.SPAWN,))},
    S.SPAWNING: {
        Spawned: (S.STARTING, ()),
        Stop: (S.ABORTING, ()),
        Kill: (S.ABORTING, ()),
        D.ENDED: (S.STOPPED, ()),
        D.ENDED_RETRY: (S.BACKOFF, ()),
        D.ENDED_FAILED: (S.FAILED, ()),
    },
    S.ABORTING: {
        Spawned: (S.STOPPING, (TERM,)),
        D.SPAWNED_KILL_PENDING: (S.KILLING, (KILL,)),
        Stop: (S.ABORTING, ()),
        Kill: (S.ABORTING, ()),
        D.ENDED: (S.STOPPED, ()),
    },
    S.STARTING: {**_REQUESTS, **_ENDED, Ready: (S.READY, ()), Timer.READY: (S.STOPPING, (TERM,))},
    S.READY: {
        **_REQUESTS,
        **_ENDED,
        Alive: (S.READY, (A.PET_WATCHDOG,)),
        Timer.HEALTHY: (S.READY, (A.RESET_BACKOFF,)),
        Timer.WATCHDOG: (S.STOPPING, (ABORT,)),
    },
    S.STOPPING: {
        **_ENDED,
        Stop: (S.STOPPING, ()),
        Kill: (S.KILLING, (KILL,)),
        Timer.GRACE: (S.KILLING, (KILL,)),
    },
    S.KILLING: {**_ENDED, Stop: (S.KILLING, ()), Kill: (S.KILLING, ())},
}
"""All transitions: state -> trigger -> next state and actions."""

TIMERS: Mapping[State, tuple[Timer, ...]] = {
    S.STARTING: (Timer.READY,),
    S.READY: (Timer.HEALTHY, Timer.WATCHDOG),
    S.STOPPING: (Timer.GRACE,),
    S.BACKOFF: (Timer.BACKOFF,),
}
"""The timers that run in a state: started on entry and cancelled on exit."""

RUNNING = frozenset({S.STARTING, S.READY, S.STOPPING, S.KILLING})
"""The states in which a process exists."""

AT_REST = frozenset({S.STOPPED, S.FAILED})
"""The states that a child leaves only on request."""
