"""The table of a child's life: what may follow what.

Pure data. A line reads: in this state, by this trigger, to that state, with these acts. A pair of
state and trigger that stands nowhere changes nothing; so the absence of ``START`` and ``RESTART``
while a child stops is what lets the stop win.
"""

from collections.abc import Mapping
from enum import Enum, auto

from rt.supervisor.state import State, Timer


class Trigger(Enum):
    """What an event means for the table, after the policy has been asked."""

    START = auto()
    STOP = auto()
    RESTART = auto()
    KILL = auto()
    NO_RESTART = auto()
    SPAWNED = auto()
    SPAWNED_KILL_PENDING = auto()  # an immediate kill was asked for meanwhile
    READY = auto()
    ALIVE = auto()
    READY_TIMEOUT = auto()
    WATCHDOG_TIMEOUT = auto()
    HEALTHY = auto()
    GRACE_OVER = auto()
    BACKOFF_OVER = auto()
    GONE = auto()  # not wanted any more, or ended as it should
    GONE_RENEW = auto()  # a restart was asked for
    GONE_RETRY = auto()  # wanted: another try after a while
    GONE_FAILED = auto()  # wanted, but the policy allows no further try


class Act(Enum):
    """What a transition does beside the timers of its states."""

    SPAWN = auto()
    TERM = auto()
    ABORT = auto()
    KILL = auto()
    RESET_BACKOFF = auto()
    PET_WATCHDOG = auto()


S, T, A = State, Trigger, Act
Steps = Mapping[Trigger, tuple[State, tuple[Act, ...]]]

_GONE: Steps = {
    T.GONE: (S.STOPPED, ()),
    T.GONE_RENEW: (S.SPAWNING, (A.SPAWN,)),
    T.GONE_RETRY: (S.BACKOFF, ()),
    T.GONE_FAILED: (S.FAILED, ()),
}
_AT_REST: Steps = {
    T.START: (S.SPAWNING, (A.SPAWN,)),
    T.RESTART: (S.SPAWNING, (A.SPAWN,)),
    T.STOP: (S.STOPPED, ()),
    T.KILL: (S.STOPPED, ()),
}
_ASKED: Steps = {
    T.STOP: (S.STOPPING, (A.TERM,)),
    T.RESTART: (S.STOPPING, (A.TERM,)),
    T.KILL: (S.KILLING, (A.KILL,)),
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
        T.GONE: (S.STOPPED, ()),
        T.GONE_RETRY: (S.BACKOFF, ()),
        T.GONE_FAILED: (S.FAILED, ()),
    },
    S.ABORTING: {
        T.SPAWNED: (S.STOPPING, (A.TERM,)),
        T.SPAWNED_KILL_PENDING: (S.KILLING, (A.KILL,)),
        T.STOP: (S.ABORTING, ()),
        T.KILL: (S.ABORTING, ()),
        T.GONE: (S.STOPPED, ()),
    },
    S.STARTING: {
        **_ASKED,
        **_GONE,
        T.READY: (S.READY, ()),
        T.READY_TIMEOUT: (S.STOPPING, (A.TERM,)),
    },
    S.READY: {
        **_ASKED,
        **_GONE,
        T.ALIVE: (S.READY, (A.PET_WATCHDOG,)),
        T.HEALTHY: (S.READY, (A.RESET_BACKOFF,)),
        T.WATCHDOG_TIMEOUT: (S.STOPPING, (A.ABORT,)),
    },
    S.STOPPING: {
        **_GONE,
        T.STOP: (S.STOPPING, ()),
        T.KILL: (S.KILLING, (A.KILL,)),
        T.GRACE_OVER: (S.KILLING, (A.KILL,)),
    },
    S.KILLING: {
        **_GONE,
        T.STOP: (S.KILLING, ()),
        T.KILL: (S.KILLING, ()),
    },
}
"""Every transition: from a state, by a trigger, to a state, with these acts."""

TIMERS: Mapping[State, tuple[Timer, ...]] = {
    S.STARTING: (Timer.READY,),
    S.READY: (Timer.HEALTHY, Timer.WATCHDOG),
    S.STOPPING: (Timer.GRACE,),
    S.BACKOFF: (Timer.BACKOFF,),
}
"""The timers that run in a state: started on the way in, cancelled on the way out."""

RUNNING = frozenset({S.STARTING, S.READY, S.STOPPING, S.KILLING})
"""The states in which a process exists."""

AT_REST = frozenset({S.STOPPED, S.FAILED})
"""The states that a child leaves only when it is asked to."""
