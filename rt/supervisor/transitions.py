"""The transition table of a child's state machine.

Each entry maps a state and a trigger to the next state and its actions. A pair without an entry
changes nothing. A stop wins over a restart because the table has no ``START`` and no ``RESTART``
for a child that is stopping.
"""

from collections.abc import Mapping
from enum import Enum, auto

from rt.supervisor.state import SendSignal, State, Timer


class Trigger(Enum):
    """The meaning of an event for the table, after the policy was applied."""

    START = auto()
    STOP = auto()
    RESTART = auto()
    KILL = auto()
    NO_RESTART = auto()
    SPAWNED = auto()
    SPAWNED_KILL_PENDING = auto()  # a kill was requested in the meantime
    READY = auto()
    ALIVE = auto()
    READY_TIMEOUT = auto()
    WATCHDOG_TIMEOUT = auto()
    HEALTHY = auto()
    GRACE_OVER = auto()
    BACKOFF_OVER = auto()
    ENDED = auto()  # stopped, or exited as it should
    ENDED_RESTART = auto()  # a restart was requested
    ENDED_RETRY = auto()  # wanted: restart after a backoff
    ENDED_FAILED = auto()  # wanted, but the policy permits no restart


class Action(Enum):
    """What a transition does besides sending signals and starting and cancelling timers."""

    SPAWN = auto()
    RESET_BACKOFF = auto()
    PET_WATCHDOG = auto()


S, T, A = State, Trigger, Action
TERM, ABORT, KILL = SendSignal("TERM"), SendSignal("ABRT"), SendSignal("KILL")
Steps = Mapping[Trigger, tuple[State, tuple[Action | SendSignal, ...]]]

_ENDED: Steps = {
    T.ENDED: (S.STOPPED, ()),
    T.ENDED_RESTART: (S.SPAWNING, (A.SPAWN,)),
    T.ENDED_RETRY: (S.BACKOFF, ()),
    T.ENDED_FAILED: (S.FAILED, ()),
}
_AT_REST: Steps = {
    T.START: (S.SPAWNING, (A.SPAWN,)),
    T.RESTART: (S.SPAWNING, (A.SPAWN,)),
    T.STOP: (S.STOPPED, ()),
    T.KILL: (S.STOPPED, ()),
}
_REQUESTS: Steps = {
    T.STOP: (S.STOPPING, (TERM,)),
    T.RESTART: (S.STOPPING, (TERM,)),
    T.KILL: (S.KILLING, (KILL,)),
}

TABLE: Mapping[State, Steps] = {
    S.STOPPED: _AT_REST,
    S.FAILED: _AT_REST,
    S.BACKOFF: {
        **_AT_REST,
        T.NO_RESTART: (S.STOPPED, ()),
        T.BACKOFF_OVER: (S.SPAWNING, (A.SPAWN,)),
    },
    S.SPAWNING: {
        T.SPAWNED: (S.STARTING, ()),
        T.STOP: (S.ABORTING, ()),
        T.KILL: (S.ABORTING, ()),
        T.ENDED: (S.STOPPED, ()),
        T.ENDED_RETRY: (S.BACKOFF, ()),
        T.ENDED_FAILED: (S.FAILED, ()),
    },
    S.ABORTING: {
        T.SPAWNED: (S.STOPPING, (TERM,)),
        T.SPAWNED_KILL_PENDING: (S.KILLING, (KILL,)),
        T.STOP: (S.ABORTING, ()),
        T.KILL: (S.ABORTING, ()),
        T.ENDED: (S.STOPPED, ()),
    },
    S.STARTING: {
        **_REQUESTS,
        **_ENDED,
        T.READY: (S.READY, ()),
        T.READY_TIMEOUT: (S.STOPPING, (TERM,)),
    },
    S.READY: {
        **_REQUESTS,
        **_ENDED,
        T.ALIVE: (S.READY, (A.PET_WATCHDOG,)),
        T.HEALTHY: (S.READY, (A.RESET_BACKOFF,)),
        T.WATCHDOG_TIMEOUT: (S.STOPPING, (ABORT,)),
    },
    S.STOPPING: {
        **_ENDED,
        T.STOP: (S.STOPPING, ()),
        T.KILL: (S.KILLING, (KILL,)),
        T.GRACE_OVER: (S.KILLING, (KILL,)),
    },
    S.KILLING: {
        **_ENDED,
        T.STOP: (S.KILLING, ()),
        T.KILL: (S.KILLING, ()),
    },
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
