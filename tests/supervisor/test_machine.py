"""Tests of the child state machine: its transitions, and its invariants in any order of events."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rt.errors import LocalProtocolError
from rt.supervisor.machine import Machine
from rt.supervisor.policy import Policy
from rt.supervisor.state import (
    Alive,
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
from rt.supervisor.transitions import RUNNING, TABLE, TIMERS, Decision

POLICY = Policy(watchdog=1.0)


def feed(machine: Machine, *events: Event, now: float = 0.0) -> list[Effect]:
    """Feed events to a machine; return the effects of the last one."""
    effects: list[Effect] = []
    for event in events:
        effects = machine.handle(event, now)
    return effects


def backoff_of(effects: list[Effect]) -> float:
    return next(
        effect.seconds
        for effect in effects
        if isinstance(effect, StartTimer) and effect.timer is Timer.BACKOFF
    )


def test_child_starts_and_becomes_ready() -> None:
    machine = Machine(POLICY)
    assert feed(machine, Start()) == [Spawn(), Report(State.SPAWNING, "start")]
    assert feed(machine, Spawned()) == [
        StartTimer(Timer.READY, 10.0),
        Report(State.STARTING, "process started"),
    ]
    assert feed(machine, Ready()) == [
        CancelTimer(Timer.READY),
        StartTimer(Timer.HEALTHY, 2.0),
        StartTimer(Timer.WATCHDOG, 1.0),
        Report(State.READY, "ready"),
    ]


def test_stop_sends_sigterm_and_kills_after_the_timeout() -> None:
    machine = Machine(POLICY)
    stop = feed(machine, Start(), Spawned(), Ready(), Stop("enough"))
    assert stop[-3:] == [
        StartTimer(Timer.GRACE, 2.0),
        SendSignal("TERM"),
        Report(State.STOPPING, "enough"),
    ]
    assert SendSignal("KILL") in feed(machine, TimerOver(Timer.GRACE))
    assert feed(machine, Exited(signal="SIGKILL"))[-1] == Report(
        State.STOPPED, "ended by SIGKILL (enough)"
    )


def test_child_that_is_not_ready_in_time_is_restarted() -> None:
    machine = Machine(POLICY)
    assert SendSignal("TERM") in feed(machine, Start(), Spawned(), TimerOver(Timer.READY))
    assert machine.reason == "not ready within 10 s"
    assert backoff_of(feed(machine, Exited(signal="SIGTERM"))) == 0.1
    assert machine.reason == "ended by SIGTERM (not ready within 10 s)"
    assert Spawn() in feed(machine, TimerOver(Timer.BACKOFF))
    assert machine.restarts == 1


def test_silent_child_gets_sigabrt_before_sigkill() -> None:
    machine = Machine(POLICY)
    assert feed(machine, Start(), Spawned(), Ready(), Alive()) == [StartTimer(Timer.WATCHDOG, 1.0)]
    assert SendSignal("ABRT") in feed(machine, TimerOver(Timer.WATCHDOG))
    assert SendSignal("KILL") in feed(machine, TimerOver(Timer.GRACE))
    feed(machine, Exited(signal="SIGKILL"))
    assert machine.state is State.BACKOFF


def test_child_may_request_its_own_restart() -> None:
    machine = Machine(POLICY)
    assert SendSignal("ABRT") in feed(machine, Start(), Spawned(), Ready(), RestartRequested())


def test_backoff_doubles_up_to_its_cap_and_jitter_shortens_it() -> None:
    machine = Machine(POLICY)
    feed(machine, Start())
    delays = []
    for _ in range(8):
        machine.handle(Spawned(), 0.0)
        delays.append(backoff_of(machine.handle(Exited(code=1), 0.0)))
        machine.handle(TimerOver(Timer.BACKOFF), 0.0)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    machine.handle(Spawned(), 0.0)
    assert backoff_of(machine.handle(Exited(code=1), 0.0, jitter=1.0)) == 2.5


@given(fast=st.integers(0, 5), ends=st.integers(1, 12), jitter=st.floats(0, 1))
def test_fast_restarts_precede_the_backoff(fast: int, ends: int, jitter: float) -> None:
    machine = Machine(Policy(fast_restarts=fast, max_restarts=30))
    plain = Machine(Policy(max_restarts=30))
    delays: list[list[float]] = []
    for each in (machine, plain):
        each.handle(Start(), 0.0)
        delays.append([])
        for _ in range(ends):
            each.handle(Spawned(), 0.0)
            delays[-1].append(backoff_of(each.handle(Exited(signal="SIGKILL"), 0.0, jitter)))
            each.handle(TimerOver(Timer.BACKOFF), 0.0)
    assert delays[0] == ([0.0] * fast + delays[1])[:ends]


def test_fast_restarts_count_as_restarts() -> None:
    machine = Machine(Policy(fast_restarts=100, max_restarts=3))
    feed(machine, Start())
    for _ in range(3):
        feed(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF))
    feed(machine, Spawned(), Exited(code=1))
    assert machine.state is State.FAILED


def test_healthy_time_resets_fast_restarts() -> None:
    machine = Machine(Policy(fast_restarts=1))
    feed(machine, Start())
    for _ in range(2):
        feed(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF))
    feed(machine, Spawned(), Ready(), TimerOver(Timer.HEALTHY))
    assert backoff_of(feed(machine, Exited(code=1))) == 0.0
    feed(machine, TimerOver(Timer.BACKOFF), Spawned())
    assert backoff_of(feed(machine, Exited(code=1))) == 0.1


def test_healthy_time_resets_the_backoff() -> None:
    machine = Machine(POLICY)
    feed(machine, Start())
    for _ in range(3):
        feed(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF))
    feed(machine, Spawned(), Ready(), TimerOver(Timer.HEALTHY))
    assert backoff_of(feed(machine, Exited(code=1))) == 0.1


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_missing_program_is_not_tried_again(number: int) -> None:
    machine = Machine(POLICY)
    feed(machine, Start(), SpawnFailed(number, "no"))
    assert machine.state is State.FAILED
    assert machine.reason == "cannot be started: no"


def test_start_without_memory_is_tried_again() -> None:
    machine = Machine(POLICY)
    feed(machine, Start(), SpawnFailed(errno.ENOMEM, "no memory"))
    assert machine.state is State.BACKOFF


def test_child_that_exits_too_often_fails() -> None:
    machine = Machine(Policy(max_restarts=2, restart_window=10.0))
    feed(machine, Start())
    for now in (0.0, 1.0):
        feed(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF), now=now)
    feed(machine, Spawned(), Exited(code=1), now=2.0)
    assert machine.state is State.FAILED
    assert machine.reason == "exited with code 1; more than 2 restarts in 10 s"
    assert Spawn() in feed(machine, Start("manual"))


@given(
    st.lists(
        st.sampled_from(
            [Exited(code=1), Exited(signal="SIGKILL"), SpawnFailed(errno.ENOENT, "no")]
        ),
        min_size=1,
    ),
    st.floats(0, 1),
)
def test_child_that_cannot_fail_is_always_restarted(
    exits: list[Exited | SpawnFailed], jitter: float
) -> None:
    policy = Policy(gives_up=False, fast_restarts=3, backoff=0.1, backoff_cap=0.1, max_restarts=2)
    machine = Machine(policy)
    feed(machine, Start())
    for end in exits:
        if isinstance(end, Exited):
            feed(machine, Spawned())
        assert backoff_of(machine.handle(end, 0.0, jitter)) <= 0.1
        assert Spawn() in machine.handle(TimerOver(Timer.BACKOFF), 0.0)


def test_child_that_exits_rarely_is_always_restarted() -> None:
    machine = Machine(Policy(max_restarts=2, restart_window=10.0))
    feed(machine, Start())
    for turn in range(50):
        feed(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF), now=turn * 5.0)
    assert machine.state is State.SPAWNING


@pytest.mark.parametrize(
    ("restart", "exited", "state"),
    [
        ("permanent", Exited(code=0), State.BACKOFF),
        ("permanent", Exited(code=255), State.BACKOFF),
        ("transient", Exited(code=0), State.STOPPED),
        ("transient", Exited(code=1), State.BACKOFF),
        ("transient", Exited(signal="SIGSEGV"), State.BACKOFF),
        ("temporary", Exited(code=0), State.STOPPED),
        ("temporary", Exited(code=1), State.FAILED),
    ],
)
def test_policy_decides_about_a_restart(restart: str, exited: Exited, state: State) -> None:
    machine = Machine(Policy(restart=restart))  # type: ignore[arg-type]  # one of its three
    feed(machine, Start(), Spawned(), Ready(), exited)
    assert machine.state is state


def test_exit_code_255_is_described_as_emergency_stop() -> None:
    assert Exited(code=255).describe() == "emergency stop (exit code 255)"


def test_restart_starts_a_new_process_at_once() -> None:
    machine = Machine(POLICY)
    assert SendSignal("TERM") in feed(machine, Start(), Spawned(), Ready(), Restart("new code"))
    assert Spawn() in feed(machine, Exited(code=0))


@pytest.mark.parametrize(
    "events",
    [
        (Stop("s"), Restart("r")),
        (Restart("r"), Stop("s")),
        (Stop("s"), Start()),
        (Stop("s"), TimerOver(Timer.GRACE), Start()),
    ],
)
def test_stop_wins_over_a_restart(events: tuple[Event, ...]) -> None:
    machine = Machine(POLICY)
    feed(machine, Start(), Spawned(), Ready(), *events)
    assert Spawn() not in feed(machine, Exited(code=0))
    assert machine.state is State.STOPPED


def test_stop_reaches_a_process_that_is_being_started() -> None:
    machine = Machine(POLICY)
    assert feed(machine, Start(), Stop("s")) == [Report(State.ABORTING, "s")]
    assert SendSignal("TERM") in feed(machine, Spawned())


def test_kill_reaches_a_process_that_is_being_started() -> None:
    machine = Machine(POLICY)
    feed(machine, Start(), Stop("s"), Kill("k"))
    assert SendSignal("KILL") in feed(machine, Spawned())


def test_stop_ends_the_backoff() -> None:
    machine = Machine(POLICY)
    assert feed(machine, Start(), Spawned(), Exited(code=1), Stop("s"))[:1] == [
        CancelTimer(Timer.BACKOFF)
    ]
    assert machine.state is State.STOPPED


def test_child_without_restart_is_not_started_again() -> None:
    machine = Machine(POLICY)
    assert feed(machine, Start(), Spawned(), Ready(), NoRestart("soon")) == []
    feed(machine, Exited(signal="SIGKILL"))
    assert machine.state is State.STOPPED
    assert feed(machine, Start()) == []


@pytest.mark.parametrize("event", [Spawned(), SpawnFailed(2, ""), Exited(code=0)])
def test_event_of_an_unrequested_process_is_a_local_error(event: Event) -> None:
    with pytest.raises(LocalProtocolError):
        Machine(POLICY).handle(event, 0.0)


def test_table_covers_all_states_and_triggers() -> None:
    assert set(TABLE) == set(State)
    types = {Start, Stop, Restart, Kill, NoRestart, Spawned, Ready, Alive}
    triggers = {trigger for row in TABLE.values() for trigger in row}
    assert triggers == {*Decision, *Timer, *types}


RARELY = st.sampled_from([False] * 7 + [True])
EVENTS = st.sampled_from([Start("a"), Restart("b"), Ready(), Alive(), RestartRequested()])


class SimulatedSystem(RuleBasedStateMachine):
    """A simulated operating system: at most one process, and timers that expire in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(Policy(watchdog=1.0, max_restarts=3))
        self.now = 0.0
        self.requested = False
        self.process = False
        self.timers: set[Timer] = set()
        self.terminated = False
        self.grace_is_over = False
        self.kill_requested = False
        self.closed = False
        self.unwanted = False

    def feed(self, event: Event) -> None:
        for effect in self.machine.handle(event, self.now, jitter=0.5):
            match effect:
                case Spawn():
                    assert not self.process
                    assert not self.requested
                    assert not self.closed
                    assert not self.unwanted or isinstance(event, Start | Restart)
                    self.requested, self.unwanted = True, False
                    self.terminated = self.grace_is_over = self.kill_requested = False
                case SendSignal("KILL"):
                    assert self.process
                    assert self.grace_is_over or self.kill_requested
                case SendSignal():
                    assert self.process
                    self.terminated = True
                case StartTimer(timer, seconds):
                    assert seconds > 0
                    self.timers.add(timer)
                case CancelTimer(timer):
                    self.timers.discard(timer)
                case Report(state):
                    assert state is self.machine.state
        if isinstance(event, Stop | Kill):
            self.unwanted = True

    @initialize()
    def start(self) -> None:
        self.feed(Start())

    @rule(event=EVENTS)
    def other_event(self, event: Event) -> None:
        self.feed(event)

    @rule(final=RARELY)
    def stop(self, final: bool) -> None:
        self.closed |= final
        self.feed(Stop("s", final))

    @rule(final=RARELY)
    def kill(self, final: bool) -> None:
        self.closed |= final
        self.kill_requested = True
        self.feed(Kill("k", final))

    @rule(really=RARELY)
    def no_restart(self, really: bool) -> None:
        if really:
            self.closed = True
            self.feed(NoRestart("r"))

    @precondition(lambda self: self.requested)
    @rule()
    def spawned(self) -> None:
        self.requested, self.process = False, True
        self.feed(Spawned())

    @precondition(lambda self: self.requested)
    @rule(number=st.sampled_from([errno.ENOENT, errno.ENOMEM]))
    def spawn_failed(self, number: int) -> None:
        self.requested = False
        self.feed(SpawnFailed(number, "no"))

    @precondition(lambda self: self.process)
    @rule(exited=st.sampled_from([Exited(code=0), Exited(code=1), Exited(signal="SIGKILL")]))
    def exited(self, exited: Exited) -> None:
        self.process = False
        self.feed(exited)

    @precondition(lambda self: self.timers)
    @rule(data=st.data())
    def timer_over(self, data: st.DataObject) -> None:
        timer = data.draw(st.sampled_from(sorted(self.timers)))
        self.timers.remove(timer)
        self.grace_is_over |= timer is Timer.GRACE and self.terminated
        self.feed(TimerOver(timer))

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def state_matches_the_process(self) -> None:
        state = self.machine.state
        assert self.process == (state in RUNNING)
        assert self.requested == (state in (State.SPAWNING, State.ABORTING))

    @invariant()
    def only_timers_of_the_state_run(self) -> None:
        assert self.timers <= set(TIMERS.get(self.machine.state, ()))

    @invariant()
    def every_wait_is_bounded(self) -> None:
        # A killed process exits by itself, and a ready one may run forever.
        if self.machine.state in (State.STARTING, State.STOPPING, State.BACKOFF):
            assert self.timers

    @invariant()
    def unwanted_child_is_stopping(self) -> None:
        if self.unwanted:
            states = (State.ABORTING, State.STOPPING, State.KILLING, State.STOPPED)
            assert self.machine.state in states
        if self.closed:
            assert self.machine.state is not State.BACKOFF


TestEveryOrderOfEvents = SimulatedSystem.TestCase
TestEveryOrderOfEvents.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
def test_backoff_stays_within_its_bounds(jitters: list[float]) -> None:
    machine = Machine(Policy(max_restarts=100))
    feed(machine, Start())
    for jitter in jitters:
        machine.handle(Spawned(), 0.0)
        assert 0.05 <= backoff_of(machine.handle(Exited(code=1), 0.0, jitter)) <= 5.0
        machine.handle(TimerOver(Timer.BACKOFF), 0.0)
