"""The main thread's executor, in the main thread of the test."""

import contextlib
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from rt.buffer import LeaseTable
from rt.buffer.write_event import WriteEvent
from rt.executor.lease import LeaseKeeper
from rt.executor.sync import ExecutionRequest, Run, SyncExecutor, TimeLimitError


class Team:
    """A team's functions and what became of them."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, type[BaseException]]] = []
        self.executor = SyncExecutor(self.report, str(Path(__file__).parent))

    def report(self, error: BaseException, name: str) -> None:
        self.errors.append((name, type(error)))

    def execute(self, run: Run) -> BaseException | None:
        """Execute a run to its end and give the error that ended it."""
        ended: list[BaseException | None] = []

        def done(error: BaseException | None) -> None:
            ended.append(error)
            self.executor.stop()

        run.done = done
        self.executor.schedule(run)
        self.executor.execute_forever()
        return ended[0]


@pytest.fixture
def team() -> Team:
    return Team()


@pytest.fixture
def keeper(prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeaseKeeper]:
    """A keeper whose lease ends by what it is told, and not because a busy machine lets the thread that beats wait."""
    monkeypatch.setattr("rt.executor.lease.TIMEOUT", 600.0)
    monkeypatch.setattr("rt.buffer.lease._TIMEOUT_NS", 600 * 10**9)
    monkeypatch.setattr("rt.buffer.lease._ROOT_TIMEOUT_NS", 600 * 10**9)
    wakeup = WriteEvent()
    with LeaseTable.open(prefix) as table:
        keeper = LeaseKeeper(table.lease(0), wakeup)
        table.heartbeat()
        keeper.table = table  # type: ignore[attr-defined]  # for the tests to look at
        over = threading.Event()

        def heartbeat() -> None:
            while not over.wait(0.01):
                table.heartbeat()
                keeper.heartbeat()

        loop = threading.Thread(target=heartbeat)
        keeper.heartbeat()
        loop.start()
        yield keeper
        over.set()
        loop.join()
    wakeup.close()


def forever() -> None:
    while True:
        pass


def test_functions_are_called_in_order_with_their_arguments(team: Team) -> None:
    calls: list[Any] = []
    requests = [ExecutionRequest(calls.append, (number,)) for number in range(3)]
    assert team.execute(Run(requests, None)) is None
    assert calls == [0, 1, 2]


def test_a_function_that_takes_too_long_is_interrupted(team: Team) -> None:
    assert team.execute(Run([ExecutionRequest(forever, timeout=0.05)], None)) is not None
    assert team.errors == [("forever", TimeLimitError)]


def test_sleep_is_interrupted_too(team: Team) -> None:
    def sleepy() -> None:
        time.sleep(60)

    team.execute(Run([ExecutionRequest(sleepy, timeout=0.05)], None))
    assert team.errors == [("sleepy", TimeLimitError)]


def test_a_setup_that_fails_ends_the_run(team: Team) -> None:
    called: list[int] = []

    def setup() -> None:
        raise ZeroDivisionError

    error = team.execute(
        Run([ExecutionRequest(setup), ExecutionRequest(called.append, (1,))], None)
    )
    assert "setup failed" in str(error)
    assert called == []
    assert team.errors == [("setup", ZeroDivisionError)]


def test_even_an_exit_ends_its_call_alone(team: Team) -> None:
    def leave() -> None:
        raise SystemExit(3)

    team.execute(Run([ExecutionRequest(leave)], None))
    assert team.errors == [("leave", SystemExit)]


class Flag(threading.Event):
    """An event without a lock: the alarm may come while team code sets it, which no team code does outside of these tests."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        if not self._set:
            time.sleep(timeout)
        return self._set


def periodic(
    team: Team,
    body: Callable[[int, Run], None],
    keeper: LeaseKeeper | None = None,
    period: float = 0.2,
) -> Run:
    """Call body(number of the call, run) at a period until it stops the run."""
    numbers = itertools.count()
    run: Run

    def main() -> None:
        body(next(numbers), run)

    run = Run([ExecutionRequest(main, timeout=period, periodic=True)], keeper)
    run.stopped = Flag()
    team.execute(run)
    return run


def test_main_is_called_at_its_period_on_absolute_deadlines(team: Team) -> None:
    times: list[float] = []

    def body(number: int, run: Run) -> None:
        times.append(time.monotonic())
        if number >= 5:
            run.stopped.set()

    run = periodic(team, body, period=0.1)
    # Late calls are not made up for: the times stay on the grid of the period.
    assert times[-1] - times[0] >= 5 * 0.1 - 0.1
    assert run.calls == 6


def test_an_error_in_main_is_reported_and_main_goes_on(team: Team) -> None:
    def body(number: int, run: Run) -> None:
        if number == 4:
            run.stopped.set()
        raise ValueError(number)

    run = periodic(team, body)
    assert run.calls == run.failures == 5
    assert team.errors == [("main", ValueError)] * 5


def test_missed_calls_are_counted_and_not_made_up_for(team: Team) -> None:
    def body(number: int, run: Run) -> None:
        if number == 0:
            forever()
        run.stopped.set()

    run = periodic(team, body)
    assert run.calls == 2
    assert run.overruns >= 1
    assert team.errors == [("main", TimeLimitError)]


class Laggard(Flag):
    """A flag whose first waits come back late, on a clock that the test sets; for a share of that time a processor was missing."""

    def __init__(self, waits: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now = 1000.0
        self.waited = 0.0
        self._waits = waits
        self._share = share
        monkeypatch.setattr("rt.executor.sync.monotonic", lambda: self.now)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        late = 0.5 if self._waits > 0 else 0.0
        self._waits -= 1
        self.now += timeout + late
        self.waited += late * self._share
        return self._set


def lateness(laggard: Laggard, body: Callable[[], None] = lambda: None) -> list[str]:
    """What is logged of a main that is called a hundred times, each time 0.2 s after the last one."""
    team = Team()
    team.executor = SyncExecutor(team.report, team.executor.folder, lambda: lambda: laggard.waited)
    calls = itertools.count()

    def main() -> None:
        if next(calls) == 100:
            laggard.set()
        body()

    run = Run([ExecutionRequest(main, timeout=0.2, periodic=True)], None)
    run.stopped = laggard
    with structlog.testing.capture_logs() as logs:
        team.executor._log = structlog.get_logger()
        team.execute(run)
    return [entry["event"] for entry in logs]


@pytest.mark.parametrize(
    ("share", "start"),
    [
        (0.0, "calls of main come late: the code takes"),
        (1.0, "the computer is busy: calls of main come late"),
    ],
)
def test_late_calls_are_logged_with_their_cause_and_their_end(
    monkeypatch: pytest.MonkeyPatch, share: float, start: str
) -> None:
    late, over = lateness(Laggard(2, share, monkeypatch))
    assert late.startswith(start)
    assert over == "calls of main are in time again"


def test_calls_that_are_interrupted_are_not_called_late_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    laggard = Laggard(0, 0.0, monkeypatch)

    def body() -> None:
        laggard.now += 0.7
        raise TimeLimitError(0.2)

    assert lateness(laggard, body) == []


@pytest.mark.parametrize(("share", "is_busy"), [(0.0, False), (0.5, False), (0.9, True)])
def test_an_interrupted_call_knows_whether_it_waited_for_a_processor(
    monkeypatch: pytest.MonkeyPatch, share: float, is_busy: bool
) -> None:
    laggard = Laggard(0, 0.0, monkeypatch)
    found: list[BaseException] = []
    executor = SyncExecutor(
        lambda error, _name: found.append(error), ".", lambda: lambda: laggard.waited
    )

    def main() -> None:
        laggard.now += 0.25
        laggard.waited += share * 0.25
        raise TimeLimitError(0.2)

    run = Run([ExecutionRequest(main, timeout=0.2)], None, done=lambda _error: executor.stop())
    executor.schedule(run)
    executor.execute_forever()
    (error,) = found
    assert isinstance(error, TimeLimitError)
    assert bool(error.waited) == is_busy


def test_a_run_can_be_ended_within_a_call(team: Team) -> None:
    started = threading.Event()

    def endless() -> None:
        started.set()
        forever()

    run = Run([ExecutionRequest(endless, timeout=60)], None)

    def end() -> None:
        started.wait(10)
        team.executor.interrupt(run)

    thread = threading.Thread(target=end)
    thread.start()
    assert team.execute(run) is None
    thread.join()
    assert team.errors == []


def test_the_lease_is_held_while_main_runs_and_given_up_at_the_end(team: Team, keeper: Any) -> None:
    held: list[bool] = []

    def body(number: int, run: Run) -> None:
        held.append(bool(keeper.table.holders()))
        if number >= 2:
            run.stopped.set()

    periodic(team, body, keeper)
    assert held == [True] * 3
    assert not keeper.table.holders()


def test_an_error_of_a_signal_handler_between_two_calls_ends_the_mode(team: Team) -> None:
    def fail(*_: object) -> None:
        raise ValueError

    def main() -> None:
        identity = threading.main_thread().ident
        assert identity is not None
        threading.Timer(0.1, signal.pthread_kill, (identity, signal.SIGUSR1)).start()

    before = signal.signal(signal.SIGUSR1, fail)
    try:
        error = team.execute(Run([ExecutionRequest(main, timeout=30.0, periodic=True)], None))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "a signal handler of the team's code failed" in str(error)
    assert team.errors == [("a signal handler", ValueError)]


def test_an_error_of_the_robot_itself_between_two_calls_is_not_the_teams(team: Team) -> None:
    run = Run([ExecutionRequest(forever, periodic=True)], None)
    run.stopped = None  # type: ignore[assignment]  # an error of rt
    with pytest.raises(AttributeError):
        team.execute(run)
    assert team.errors == []


def test_after_an_error_a_call_has_to_end_well_before_devices_move_again(
    team: Team, keeper: Any
) -> None:
    held: list[bool] = []

    def body(number: int, run: Run) -> None:
        held.append(bool(keeper.table.holders()))
        if number == 1:
            raise ValueError
        if number >= 3:
            run.stopped.set()

    periodic(team, body, keeper)
    assert held == [True, True, False, True]


def test_a_call_that_swallows_its_time_limit_loses_the_lease(team: Team, keeper: Any) -> None:
    held: list[bool] = []

    def body(_number: int, run: Run) -> None:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            with contextlib.suppress(BaseException):  # what a hostile program does
                forever()
        held.append(keeper.permitted)
        run.stopped.set()

    periodic(team, body, keeper)
    assert held == [False]


def test_a_call_that_extends_its_own_permission_loses_the_lease(team: Team, keeper: Any) -> None:
    held: list[bool] = []

    def body(_number: int, run: Run) -> None:
        keeper.unseal()
        keeper.grant()
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            with contextlib.suppress(BaseException):  # what a hostile program does
                forever()
        held.append(keeper.permitted)
        run.stopped.set()

    with structlog.testing.capture_logs() as logs:
        periodic(team, body, keeper)
    assert held == [False]
    assert sum("does not return" in entry["event"] for entry in logs) == 1


def test_after_two_time_outs_a_call_has_to_end_in_time_before_devices_move_again(
    team: Team, keeper: Any
) -> None:
    held: list[bool] = []

    def body(number: int, run: Run) -> None:
        held.append(keeper.permitted)
        if number < 3:
            forever()
        if number == 4:
            run.stopped.set()

    with structlog.testing.capture_logs() as logs:
        periodic(team, body, keeper)
    assert held == [True, True, False, False, True]
    assert sum("too long again" in entry["event"] for entry in logs) == 1


def test_a_permission_that_runs_out_gives_the_lease_up_at_once(prefix: str) -> None:
    wakeup = WriteEvent()
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        keeper = LeaseKeeper(table.lease(0), wakeup)
        keeper.heartbeat()
        keeper.grant(time.monotonic() + 60)
        assert table.holders()
        keeper.grant(time.monotonic() - 1)
        keeper.heartbeat()
        assert not table.holders()
    wakeup.close()


def test_a_lease_that_was_closed_is_not_granted_again(prefix: str) -> None:
    wakeup = WriteEvent()
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        keeper = LeaseKeeper(table.lease(0), wakeup)
        keeper.heartbeat()
        keeper.close()
        keeper.grant()
        assert not table.holders()
    wakeup.close()


def test_a_handler_that_the_team_took_away_is_put_back(team: Team) -> None:
    def take() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        sys.setswitchinterval(10)

    assert (
        team.execute(Run([ExecutionRequest(take), ExecutionRequest(forever, timeout=0.05)], None))
        is not None
    )
    assert team.errors == [("forever", TimeLimitError)]
    assert sys.getswitchinterval() < 1


def test_without_an_event_loop_the_lease_is_not_held(team: Team, prefix: str) -> None:
    """Main alone may not drive: nobody could tell it to stop."""
    wakeup = WriteEvent()
    held: list[bool] = []
    with LeaseTable.open(prefix) as table:
        table.heartbeat()

        def body(_number: int, run: Run) -> None:
            held.append(bool(table.holders()))
            run.stopped.set()

        periodic(team, body, LeaseKeeper(table.lease(0), wakeup))
    wakeup.close()
    assert held == [False]


def test_actions_keep_the_lease_when_there_is_no_main(team: Team, keeper: Any) -> None:
    def setup() -> None:
        pass

    run = Run([ExecutionRequest(setup)], keeper, hold=True)
    team.execute(run)
    assert keeper.permitted
    assert keeper.table.holders()
    team.executor.interrupt(run)
    assert not keeper.permitted
    assert not keeper.table.holders()


@pytest.mark.parametrize("file", ["x", str(Path(__file__).with_name("rt_pretended.py"))])
def test_our_own_code_is_never_torn(team: Team, file: str) -> None:
    """An alarm that comes while rt works for the team's function is put off until that has ended."""
    from rt.executor import api

    finished: list[bool] = []

    class Slow:
        def __str__(self) -> str:
            return "text"

    def busy() -> None:
        # Code of rt, as the frame's module says, that takes longer than the limit.
        exec(
            compile(
                "import time\nend = time.monotonic() + 0.1\nwhile time.monotonic() < end: pass\nfinished.append(True)",
                file,
                "exec",
            ),
            {"__name__": "rt.pretended", "finished": finished},
        )
        forever()

    assert api is not None
    team.execute(Run([ExecutionRequest(busy, timeout=0.02)], None))
    assert finished == [True]
    assert team.errors == [("busy", TimeLimitError)]
