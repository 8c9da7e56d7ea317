"""ExecutorPool, with real processes, and with fake ones in any order of events."""

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import booleans, sampled_from
from support.supervised import WELL_BEHAVED, Watcher, assert_no_children, is_state, place, program

from rt.errors import ExecutionError
from rt.executor.pool import EXECUTOR, READY_LIMIT, STANDBY, Assignment, ExecutorPool
from rt.process.lifeline import CHANNEL
from rt.supervisor.child import Child
from rt.supervisor.machine import Machine
from rt.supervisor.policy import Policy
from rt.supervisor.spec import ChildSpec, ChildStatus
from rt.supervisor.state import (
    Event,
    Exited,
    Ready,
    Report,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    State,
    Timer,
    TimerOver,
)
from rt.supervisor.transitions import RUNNING
from rt.supervisor.tree import Supervisor

PATIENCE = 30.0
EXITS_ON_MESSAGE = """
    channel = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: None)
    notify("READY=1")
    channel.recv(1)
"""
"""A process that ignores SIGTERM and exits when it receives a message."""


class Pool(ExecutorPool):
    """A pool with real children."""

    def __init__(self, supervisor: Supervisor, ready_limit: float) -> None:
        super().__init__(supervisor, ready_limit=ready_limit)
        self.executor: Child = supervisor.child(EXECUTOR)
        self.standby: Child = supervisor.child(STANDBY)

    async def until(self, name: str, state: State) -> None:
        await getattr(self, name).until(is_state(state))

    async def begin(self) -> Assignment:
        """Begin a mode as the dispatcher does."""
        assignment = await self.acquire()
        self.prepare_next()
        return assignment


@contextlib.asynccontextmanager
async def open_pool(
    executor: str = WELL_BEHAVED, standby: str = WELL_BEHAVED, ready_limit: float = READY_LIMIT
) -> AsyncIterator[Pool]:
    """A pool whose executor is ready."""
    watcher = Watcher()

    def on_change(status: ChildStatus) -> None:
        watcher.on_change(status)
        pool.changed(status)

    bodies = {EXECUTOR: executor, STANDBY: standby}
    specs = [
        ChildSpec(
            name=name,
            command=program(body, CHANNEL),
            autostart=name == EXECUTOR,
            stop_timeout=PATIENCE,
            backoff=0.01,
        )
        for name, body in bodies.items()
    ]
    with place() as directory, trio.fail_after(PATIENCE):
        supervisor = Supervisor(specs, directory, on_line=watcher.on_line, on_change=on_change)
        pool = Pool(supervisor, ready_limit)
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            yield pool
            supervisor.kill("the test is over")
    assert_no_children()


async def send_exit(child: Child) -> None:
    """Let a process that runs `EXITS_ON_MESSAGE` end."""
    assert child.channel is not None
    await child.channel.send(b"e")


async def test_standby_runs_only_while_the_executor_is_busy() -> None:
    async with open_pool() as pool:
        assert pool.standby.status.state is State.STOPPED
        mode = await pool.begin()
        assert mode.child is pool.executor
        await pool.until(STANDBY, State.READY)
        pool.recycle(mode, "idle")
        await pool.executor.until(lambda status: status.ready and status.pid != mode.pid)
        await pool.until(STANDBY, State.STOPPED)
        assert pool.executor.status.restarts == 0, "planned restarts are not counted"


async def test_each_mode_gets_a_new_process() -> None:
    async with open_pool() as pool:
        used = []
        for _ in range(5):
            mode = await pool.begin()
            used.append(mode.pid)
            await pool.until(EXECUTOR if mode.child is pool.standby else STANDBY, State.READY)
            pool.recycle(mode, "the next mode begins")
        assert len(set(used)) == len(used)


async def test_process_that_survives_its_mode_is_killed_and_replaced() -> None:
    async with open_pool(executor=EXITS_ON_MESSAGE) as pool:
        mode = await pool.begin()
        pool.recycle(mode, "idle")
        with trio.move_on_after(0.1) as waited:
            await pool.wait_reaped(mode)
        assert waited.cancelled_caught
        pool.kill(mode)
        await pool.wait_reaped(mode)
        assert pool.executor.status.pid != mode.pid
        await pool.executor.until(lambda status: status.ready and status.pid != mode.pid)
        pool.kill(mode)  # another process has replaced it


async def test_mode_during_the_stop_of_the_standby_gets_one() -> None:
    async with open_pool(standby=EXITS_ON_MESSAGE) as pool:
        first = await pool.begin()
        await pool.until(STANDBY, State.READY)
        pool.recycle(first, "idle")
        await pool.until(STANDBY, State.STOPPING)
        second = await pool.begin()
        assert second.child is pool.executor
        assert pool.standby.status.state is State.STOPPING
        await send_exit(pool.standby)
        await pool.until(STANDBY, State.READY)


async def test_mode_after_one_in_the_standby_gets_a_standby() -> None:
    async with open_pool(standby=EXITS_ON_MESSAGE) as pool:
        first = await pool.begin()
        await pool.until(STANDBY, State.READY)
        pool.recycle(first, "the next mode begins")
        second = await pool.begin()
        assert second.child is pool.standby
        await pool.executor.until(lambda status: status.ready and status.pid != first.pid)
        pool.recycle(second, "the next mode begins")
        third = await pool.begin()
        assert third.child is pool.executor
        assert pool.standby.status.state is State.STOPPING
        await send_exit(pool.standby)
        await pool.until(STANDBY, State.READY)


async def test_standby_does_not_start_for_a_finished_mode() -> None:
    async with open_pool(standby=EXITS_ON_MESSAGE) as pool:
        first = await pool.begin()
        await pool.until(STANDBY, State.READY)
        pool.recycle(first, "idle")
        await pool.until(STANDBY, State.STOPPING)
        pool.recycle(await pool.begin(), "idle again")
        await send_exit(pool.standby)
        await pool.until(STANDBY, State.STOPPED)
        # While code is loading, the standby would take the processor from it.
        mode = await pool.acquire()
        await trio.testing.wait_all_tasks_blocked()
        assert pool.standby.status.state is State.STOPPED
        pool.recycle(mode, "not begun")


async def test_mode_without_a_ready_process_is_refused() -> None:
    async with open_pool(ready_limit=0.01) as pool:
        await pool.acquire()
        with pytest.raises(
            ExecutionError, match="no process can run team code: the executor is ready"
        ):
            await pool.acquire()


class FakeChild:
    """A child with a real state machine and fake processes."""

    def __init__(self, name: str, machine_test: "AnyOrder") -> None:
        self.spec = SimpleNamespace(name=name)
        self.channel: Any = None
        self.pid: int | None = None
        self.machine = Machine(Policy())
        self._machine_test = machine_test

    @property
    def status(self) -> ChildStatus:
        return ChildStatus(
            name=self.spec.name,
            state=self.machine.state,
            reason=self.machine.reason,
            pid=self.pid,
            since=0.0,
            restarts=self.machine.restarts,
            status="",
            last_exit=None,
        )

    def feed(self, event: Event) -> None:
        self._machine_test.now += 10.0  # never more restarts than the policy allows
        for effect in self.machine.handle(event, self._machine_test.now):
            match effect:
                case Spawn():
                    assert self.pid is None, "one process at a time"
                case Report():
                    self._machine_test.pool.changed(self.status)

    def advance(self, *, well: bool = True) -> bool:
        """Let the child's next event happen, or fail; return whether there was one."""
        match self.machine.state:
            case State.SPAWNING | State.ABORTING if well:
                self._machine_test.pids += 1
                self.pid, self.channel = self._machine_test.pids, object()
                self.feed(Spawned())
            case State.SPAWNING | State.ABORTING:
                self.feed(SpawnFailed(11, "no process can be made now"))
            case State.STARTING if well:
                self.feed(Ready())
            case State.BACKOFF:
                self.feed(TimerOver(Timer.BACKOFF))
            case State.STOPPING | State.KILLING:
                self.exit()
            case State.STARTING:
                self.exit()
            case _:
                return False
        return True

    def exit(self) -> None:
        self.pid = self.channel = None
        self.feed(Exited(code=0))


class AnyOrder(RuleBasedStateMachine):
    """A robot whose modes begin and end, and whose processes start, fail and end, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pids = 100
        children = {name: FakeChild(name, self) for name in (EXECUTOR, STANDBY)}
        self.executor, self.standby = children[EXECUTOR], children[STANDBY]
        supervisor: Any = SimpleNamespace(child=children.__getitem__)
        self.pool = ExecutorPool(supervisor)
        self.mode: Any = None
        self.is_begun = False
        self.used: set[int] = set()
        self.executor.machine.handle(Start(), 0.0)

    def is_free(self) -> bool:
        held = None if self.mode is None else self.mode.child
        return any(each.status.ready and each is not held for each in (self.executor, self.standby))

    @precondition(lambda self: self.is_free())
    @rule(is_loaded=sampled_from([True, True, False]))
    def next_mode(self, is_loaded: bool) -> None:
        self.end()
        if not self.is_free():
            return
        self.mode = trio.run(self.pool.acquire)
        assert self.mode.pid not in self.used
        self.used.add(self.mode.pid)
        self.is_begun = is_loaded
        if is_loaded:
            self.pool.prepare_next()

    @rule()
    def end(self) -> None:
        if self.mode is not None:
            self.pool.recycle(self.mode, "idle")
            self.mode = None

    @rule(name=sampled_from([EXECUTOR, STANDBY]), steps=sampled_from([1, 3]))
    def advance(self, name: str, steps: int) -> None:
        for _ in range(steps):
            getattr(self, name).advance()

    @rule(name=sampled_from([EXECUTOR, STANDBY]), crashes=booleans())
    def fail(self, name: str, crashes: bool) -> None:
        child = getattr(self, name)
        if not crashes:
            child.advance(well=False)
        elif child.machine.state in RUNNING:
            child.exit()

    @rule()
    def settle(self) -> None:
        if self.mode is not None and self.mode.child.pid != self.mode.pid:
            self.end()  # the process has crashed
        for _ in range(100):
            if not (self.executor.advance() or self.standby.advance()):
                break
        else:
            raise AssertionError("the children never settle")
        if self.mode is None:
            assert self.executor.status.ready
            assert self.standby.status.state is State.STOPPED, (
                "an idle robot has one executor process"
            )
        elif self.is_begun:
            assert self.is_free(), "the next mode must wait for a process"

    @invariant()
    def mode_keeps_its_process(self) -> None:
        if self.mode is not None and self.mode.child.pid == self.mode.pid:
            assert self.mode.child.machine.state is State.READY, (
                "the process of a mode is not stopped"
            )

    def teardown(self) -> None:
        self.settle()


def test_next_mode_has_a_process_after_any_order_of_events() -> None:
    run_state_machine_as_test(
        AnyOrder, settings=settings(max_examples=100, stateful_step_count=30, deadline=None)
    )
