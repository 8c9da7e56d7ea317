"""A child's life: each row of the table as a story, and its rules against every order of events."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rt.errors import LocalProtocolError
from rt.supervisor.machine import Machine
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
from rt.supervisor.transitions import RUNNING, TABLE, TIMERS, Trigger

POLICY = Policy(watchdog=1.0)


def live(machine: Machine, *events: Event, now: float = 0.0) -> list[Effect]:
    """Live through events; gives what follows from the last one."""
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


def test_a_child_starts_and_becomes_ready() -> None:
    machine = Machine(POLICY)
    assert live(machine, Start()) == [Spawn(), Report(State.SPAWNING, "start")]
    assert live(machine, Spawned()) == [
        StartTimer(Timer.READY, 10.0),
        Report(State.STARTING, "process started"),
    ]
    assert live(machine, Ready()) == [
        CancelTimer(Timer.READY),
        StartTimer(Timer.HEALTHY, 2.0),
        StartTimer(Timer.WATCHDOG, 1.0),
        Report(State.READY, "ready"),
    ]


def test_a_stop_is_polite_waits_and_then_kills() -> None:
    machine = Machine(POLICY)
    stop = live(machine, Start(), Spawned(), Ready(), Stop("enough"))
    assert stop[-3:] == [
        StartTimer(Timer.GRACE, 2.0),
        SendSignal("TERM"),
        Report(State.STOPPING, "enough"),
    ]
    assert SendSignal("KILL") in live(machine, TimerOver(Timer.GRACE))
    assert live(machine, Exited(signal="SIGKILL"))[-1] == Report(
        State.STOPPED, "ended by SIGKILL (enough)"
    )


def test_a_child_that_is_never_ready_is_stopped_and_tried_again() -> None:
    machine = Machine(POLICY)
    assert SendSignal("TERM") in live(machine, Start(), Spawned(), TimerOver(Timer.READY))
    assert machine.reason == "not ready within 10 s"
    assert backoff_of(live(machine, Exited(signal="SIGTERM"))) == 0.1
    assert machine.reason == "ended by SIGTERM (not ready within 10 s)"
    assert Spawn() in live(machine, TimerOver(Timer.BACKOFF))
    assert machine.restarts == 1


def test_a_silent_child_is_asked_for_a_trace_before_it_is_killed() -> None:
    machine = Machine(POLICY)
    assert live(machine, Start(), Spawned(), Ready(), Alive()) == [StartTimer(Timer.WATCHDOG, 1.0)]
    assert SendSignal("ABRT") in live(machine, TimerOver(Timer.WATCHDOG))
    assert SendSignal("KILL") in live(machine, TimerOver(Timer.GRACE))
    live(machine, Exited(signal="SIGKILL"))
    assert machine.state is State.BACKOFF


def test_a_child_may_ask_for_its_own_restart() -> None:
    machine = Machine(POLICY)
    assert SendSignal("ABRT") in live(machine, Start(), Spawned(), Ready(), RestartRequested())


def test_the_back_off_doubles_up_to_its_cap_and_jitter_takes_off_up_to_half() -> None:
    machine = Machine(POLICY)
    live(machine, Start())
    delays = []
    for _ in range(8):
        machine.handle(Spawned(), 0.0)
        delays.append(backoff_of(machine.handle(Exited(code=1), 0.0)))
        machine.handle(TimerOver(Timer.BACKOFF), 0.0)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    machine.handle(Spawned(), 0.0)
    assert backoff_of(machine.handle(Exited(code=1), 0.0, jitter=1.0)) == 2.5


@given(fast=st.integers(0, 5), ends=st.integers(1, 12), jitter=st.floats(0, 1))
def test_fast_restarts_come_before_the_back_off(fast: int, ends: int, jitter: float) -> None:
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


def test_fast_restarts_count_against_the_restart_intensity() -> None:
    machine = Machine(Policy(fast_restarts=100, max_restarts=3))
    live(machine, Start())
    for _ in range(3):
        live(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF))
    live(machine, Spawned(), Exited(code=1))
    assert machine.state is State.FAILED


def test_a_healthy_time_grants_fast_restarts_again() -> None:
    machine = Machine(Policy(fast_restarts=1))
    live(machine, Start())
    for _ in range(2):
        live(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF))
    live(machine, Spawned(), Ready(), TimerOver(Timer.HEALTHY))
    assert backoff_of(live(machine, Exited(code=1))) == 0.0
    live(machine, TimerOver(Timer.BACKOFF), Spawned())
    assert backoff_of(live(machine, Exited(code=1))) == 0.1


def test_a_healthy_time_makes_the_back_off_begin_anew() -> None:
    machine = Machine(POLICY)
    live(machine, Start())
    for _ in range(3):
        live(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF))
    live(machine, Spawned(), Ready(), TimerOver(Timer.HEALTHY))
    assert backoff_of(live(machine, Exited(code=1))) == 0.1


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_a_program_that_is_not_there_is_not_tried_again(number: int) -> None:
    machine = Machine(POLICY)
    live(machine, Start(), SpawnFailed(number, "no"))
    assert machine.state is State.FAILED
    assert machine.reason == "cannot be started: no"


def test_a_start_for_which_there_was_no_memory_is_tried_again() -> None:
    machine = Machine(POLICY)
    live(machine, Start(), SpawnFailed(errno.ENOMEM, "no memory"))
    assert machine.state is State.BACKOFF


def test_a_child_that_ends_too_often_has_failed() -> None:
    machine = Machine(Policy(max_restarts=2, restart_window=10.0))
    live(machine, Start())
    for now in (0.0, 1.0):
        live(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF), now=now)
    live(machine, Spawned(), Exited(code=1), now=2.0)
    assert machine.state is State.FAILED
    assert machine.reason == "exited with code 1; more than 2 restarts within 10 s"
    assert Spawn() in live(machine, Start("by hand"))


@given(
    st.lists(
        st.sampled_from(
            [Exited(code=1), Exited(signal="SIGKILL"), SpawnFailed(errno.ENOENT, "no")]
        ),
        min_size=1,
    ),
    st.floats(0, 1),
)
def test_a_child_that_is_never_given_up_is_started_again_soon(
    ends: list[Exited | SpawnFailed], jitter: float
) -> None:
    policy = Policy(gives_up=False, fast_restarts=3, backoff=0.1, backoff_cap=0.1, max_restarts=2)
    machine = Machine(policy)
    live(machine, Start())
    for end in ends:
        if isinstance(end, Exited):
            live(machine, Spawned())
        assert backoff_of(machine.handle(end, 0.0, jitter)) <= 0.1
        assert Spawn() in machine.handle(TimerOver(Timer.BACKOFF), 0.0)


def test_a_child_that_ends_now_and_then_comes_back_for_ever() -> None:
    machine = Machine(Policy(max_restarts=2, restart_window=10.0))
    live(machine, Start())
    for turn in range(50):
        live(machine, Spawned(), Exited(code=1), TimerOver(Timer.BACKOFF), now=turn * 5.0)
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
def test_the_policy_says_who_comes_back(restart: str, exited: Exited, state: State) -> None:
    machine = Machine(Policy(restart=restart))  # type: ignore[arg-type]  # one of its three
    live(machine, Start(), Spawned(), Ready(), exited)
    assert machine.state is state


def test_an_emergency_stop_is_called_by_its_name() -> None:
    assert Exited(code=255).describe() == "emergency stop (exit code 255)"


def test_a_restart_gives_a_new_process_at_once() -> None:
    machine = Machine(POLICY)
    assert SendSignal("TERM") in live(machine, Start(), Spawned(), Ready(), Restart("new code"))
    assert Spawn() in live(machine, Exited(code=0))


@pytest.mark.parametrize(
    "asked",
    [
        (Stop("s"), Restart("r")),
        (Restart("r"), Stop("s")),
        (Stop("s"), Start()),
        (Stop("s"), TimerOver(Timer.GRACE), Start()),
    ],
)
def test_a_stop_wins_over_a_restart(asked: tuple[Event, ...]) -> None:
    machine = Machine(POLICY)
    live(machine, Start(), Spawned(), Ready(), *asked)
    assert Spawn() not in live(machine, Exited(code=0))
    assert machine.state is State.STOPPED


def test_a_stop_while_the_process_is_being_made_reaches_it() -> None:
    machine = Machine(POLICY)
    assert live(machine, Start(), Stop("s")) == [Report(State.ABORTING, "s")]
    assert SendSignal("TERM") in live(machine, Spawned())


def test_a_kill_while_the_process_is_being_made_reaches_it() -> None:
    machine = Machine(POLICY)
    live(machine, Start(), Stop("s"), Kill("k"))
    assert SendSignal("KILL") in live(machine, Spawned())


def test_a_stop_ends_the_wait_for_another_try() -> None:
    machine = Machine(POLICY)
    assert live(machine, Start(), Spawned(), Exited(code=1), Stop("s"))[:1] == [
        CancelTimer(Timer.BACKOFF)
    ]
    assert machine.state is State.STOPPED


def test_a_retired_child_ends_its_life_and_gets_no_other() -> None:
    machine = Machine(POLICY)
    assert live(machine, Start(), Spawned(), Ready(), NoRestart("soon")) == []
    live(machine, Exited(signal="SIGKILL"))
    assert machine.state is State.STOPPED
    assert live(machine, Start()) == []


@pytest.mark.parametrize("event", [Spawned(), SpawnFailed(2, ""), Exited(code=0)])
def test_a_process_that_was_not_asked_for_is_our_own_mistake(event: Event) -> None:
    with pytest.raises(LocalProtocolError):
        Machine(POLICY).handle(event, 0.0)


def test_every_state_has_a_row_and_every_trigger_a_use() -> None:
    assert set(TABLE) == set(State)
    assert {trigger for row in TABLE.values() for trigger in row} == set(Trigger)


RARELY = st.sampled_from([False] * 7 + [True])
WORDS = st.sampled_from([Start("a"), Restart("b"), Ready(), Alive(), RestartRequested()])


class SimulatedSystem(RuleBasedStateMachine):
    """An operating system as the machine sees it: a process or none, and timers that run out in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(Policy(watchdog=1.0, max_restarts=3))
        self.now = 0.0
        self.asked = False
        self.process = False
        self.timers: set[Timer] = set()
        self.polite = False
        self.graced = False
        self.killed = False
        self.closed = False
        self.unwanted = False

    def feed(self, event: Event) -> None:
        for effect in self.machine.handle(event, self.now, jitter=0.5):
            match effect:
                case Spawn():
                    assert not self.process
                    assert not self.asked
                    assert not self.closed
                    assert not self.unwanted or isinstance(event, Start | Restart)
                    self.asked, self.unwanted = True, False
                    self.polite = self.graced = self.killed = False
                case SendSignal("KILL"):
                    assert self.process
                    assert self.graced or self.killed
                case SendSignal():
                    assert self.process
                    self.polite = True
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

    @rule(event=WORDS)
    def hear(self, event: Event) -> None:
        self.feed(event)

    @rule(final=RARELY)
    def stop(self, final: bool) -> None:
        self.closed |= final
        self.feed(Stop("s", final))

    @rule(final=RARELY)
    def kill(self, final: bool) -> None:
        self.closed |= final
        self.killed = True
        self.feed(Kill("k", final))

    @rule(really=RARELY)
    def retire(self, really: bool) -> None:
        if really:
            self.closed = True
            self.feed(NoRestart("r"))

    @precondition(lambda self: self.asked)
    @rule()
    def spawned(self) -> None:
        self.asked, self.process = False, True
        self.feed(Spawned())

    @precondition(lambda self: self.asked)
    @rule(number=st.sampled_from([errno.ENOENT, errno.ENOMEM]))
    def spawn_failed(self, number: int) -> None:
        self.asked = False
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
        self.graced |= timer is Timer.GRACE and self.polite
        self.feed(TimerOver(timer))

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_state_tells_of_the_process(self) -> None:
        state = self.machine.state
        assert self.process == (state in RUNNING)
        assert self.asked == (state in (State.SPAWNING, State.ABORTING))

    @invariant()
    def only_the_timers_of_the_state_run(self) -> None:
        assert self.timers <= set(TIMERS.get(self.machine.state, ()))

    @invariant()
    def every_wait_has_an_end(self) -> None:
        # A killed process ends by itself, and a ready one may live for ever; all others have a
        # deadline.
        if self.machine.state in (State.STARTING, State.STOPPING, State.BACKOFF):
            assert self.timers

    @invariant()
    def who_is_unwanted_or_closed_is_on_the_way_out(self) -> None:
        if self.unwanted:
            ways = (State.ABORTING, State.STOPPING, State.KILLING, State.STOPPED)
            assert self.machine.state in ways
        if self.closed:
            assert self.machine.state is not State.BACKOFF


TestEveryOrderOfEvents = SimulatedSystem.TestCase
TestEveryOrderOfEvents.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
def test_a_back_off_is_never_longer_than_its_cap_nor_shorter_than_half_of_the_first(
    jitters: list[float],
) -> None:
    machine = Machine(Policy(max_restarts=100))
    live(machine, Start())
    for jitter in jitters:
        machine.handle(Spawned(), 0.0)
        assert 0.05 <= backoff_of(machine.handle(Exited(code=1), 0.0, jitter)) <= 5.0
        machine.handle(TimerOver(Timer.BACKOFF), 0.0)
