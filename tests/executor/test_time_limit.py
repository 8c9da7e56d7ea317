"""SyncExecutor, in the main thread of the test."""

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
from rt.executor.time_limit import ExecutionRequest, Run, SyncExecutor, TimeLimitError


class Team:
    """An executor and the errors that it reported."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, type[BaseException]]] = []
        self.executor = SyncExecutor(self.report, str(Path(__file__).parent))

    def report(self, error: BaseException, name: str) -> None:
        self.errors.append((name, type(error)))

    def execute(self, run: Run) -> BaseException | None:
        """Execute a run; return the error that ended it."""
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
def keeper(prefix: str) -> Iterator[LeaseKeeper]:
    """A keeper whose lease does not lapse because a busy machine delays its heartbeats."""
    wakeup = WriteEvent()
    with LeaseTable.open(prefix, timeout=600.0, root_timeout=600.0) as table:
        keeper = LeaseKeeper(table.lease(0), wakeup)
        table.heartbeat()
        keeper.table = table  # type: ignore[attr-defined]  # for the tests
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


def test_function_that_takes_too_long_is_interrupted(team: Team) -> None:
    assert team.execute(Run([ExecutionRequest(forever, timeout=0.05)], None)) is not None
    assert team.errors == [("forever", TimeLimitError)]


def test_sleep_is_interrupted(team: Team) -> None:
    def sleepy() -> None:
        time.sleep(60)

    team.execute(Run([ExecutionRequest(sleepy, timeout=0.05)], None))
    assert team.errors == [("sleepy", TimeLimitError)]


def test_failing_setup_ends_the_run(team: Team) -> None:
    called: list[int] = []

    def setup() -> None:
        raise ZeroDivisionError

    error = team.execute(
        Run([ExecutionRequest(setup), ExecutionRequest(called.append, (1,))], None)
    )
    assert "setup failed" in str(error)
    assert called == []
    assert team.errors == [("setup", ZeroDivisionError)]


def test_exit_ends_only_its_call(team: Team) -> None:
    def exit_process() -> None:
        raise SystemExit(3)

    team.execute(Run([ExecutionRequest(exit_process)], None))
    assert team.errors == [("exit_process", SystemExit)]


class Flag(threading.Event):
    """An event without a lock, because the alarm may interrupt team code that sets it here."""

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
    """Call body(number of the call, run) periodically until it stops the run."""
    numbers = itertools.count()
    run: Run

    def main() -> None:
        body(next(numbers), run)

    run = Run([ExecutionRequest(main, timeout=period, periodic=True)], keeper)
    run.stopped = Flag()
    team.execute(run)
    return run


def test_main_is_called_on_absolute_deadlines(team: Team) -> None:
    times: list[float] = []

    def body(number: int, run: Run) -> None:
        times.append(time.monotonic())
        if number >= 5:
            run.stopped.set()

    periodic(team, body, period=0.1)
    # Late calls are not caught up: the times stay on the grid of the period.
    assert times[-1] - times[0] >= 5 * 0.1 - 0.1
    assert len(times) == 6


def test_main_is_called_again_after_an_error(team: Team) -> None:
    def body(number: int, run: Run) -> None:
        if number == 4:
            run.stopped.set()
        raise ValueError(number)

    periodic(team, body)
    assert team.errors == [("main", ValueError)] * 5


def test_missed_calls_are_counted_and_not_caught_up(team: Team) -> None:
    calls: list[int] = []

    def body(number: int, run: Run) -> None:
        calls.append(number)
        if number == 0:
            forever()
        run.stopped.set()

    run = periodic(team, body)
    assert calls == [0, 1]
    assert run.overruns >= 1
    assert team.errors == [("main", TimeLimitError)]


class LateFlag(Flag):
    """A flag whose first waits return late, on a fake clock.

    For a share of that time the thread waited for a processor.
    """

    def __init__(self, waits: int = 0, share: float = 0.0) -> None:
        super().__init__()
        self.now = 1000.0
        self.waited = 0.0
        self._waits = waits
        self._share = share

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        late = 0.5 if self._waits > 0 else 0.0
        self._waits -= 1
        self.now += timeout + late
        self.waited += late * self._share
        return self._set


def lateness(flag: LateFlag, body: Callable[[], None] = lambda: None) -> list[str]:
    """Return the events logged for a main that is called a hundred times with a period of 0.2 s."""
    team = Team()
    team.executor = SyncExecutor(
        team.report, team.executor.folder, lambda: flag.waited, lambda: flag.now
    )
    calls = itertools.count()

    def main() -> None:
        if next(calls) == 100:
            flag.set()
        body()

    run = Run([ExecutionRequest(main, timeout=0.2, periodic=True)], None)
    run.stopped = flag
    with structlog.testing.capture_logs() as logs:
        team.executor._log = structlog.get_logger()
        team.execute(run)
    return [entry["event"] for entry in logs]


@pytest.mark.parametrize(
    ("share", "start"),
    [
        (0.0, "calls of main are late: they take"),
        (1.0, "the computer is busy: calls of main are late"),
    ],
)
def test_late_calls_are_logged_with_their_cause_and_end(share: float, start: str) -> None:
    late, over = lateness(LateFlag(2, share))
    assert late.startswith(start)
    assert over == "calls of main are on time again"


def test_interrupted_calls_are_not_logged_as_late() -> None:
    flag = LateFlag()

    def body() -> None:
        flag.now += 0.7
        raise TimeLimitError(0.2)

    assert lateness(flag, body) == []


@pytest.mark.parametrize(("share", "is_busy"), [(0.0, False), (0.5, False), (0.9, True)])
def test_interrupted_call_knows_whether_it_waited_for_a_processor(
    share: float, is_busy: bool
) -> None:
    flag = LateFlag()
    found: list[BaseException] = []
    executor = SyncExecutor(
        lambda error, _name: found.append(error), ".", lambda: flag.waited, lambda: flag.now
    )

    def main() -> None:
        flag.now += 0.25
        flag.waited += share * 0.25
        raise TimeLimitError(0.2)

    run = Run([ExecutionRequest(main, timeout=0.2)], None, done=lambda _error: executor.stop())
    executor.schedule(run)
    executor.execute_forever()
    (error,) = found
    assert isinstance(error, TimeLimitError)
    assert bool(error.waited) == is_busy


def test_run_can_be_ended_within_a_call(team: Team) -> None:
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


def test_lease_is_held_until_main_ends(team: Team, keeper: Any) -> None:
    held: list[bool] = []

    def body(number: int, run: Run) -> None:
        held.append(bool(keeper.table.holders()))
        if number >= 2:
            run.stopped.set()

    periodic(team, body, keeper)
    assert held == [True] * 3
    assert not keeper.table.holders()


def test_error_of_a_signal_handler_ends_the_mode(team: Team) -> None:
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
    assert "a signal handler of team code failed" in str(error)
    assert team.errors == [("a signal handler", ValueError)]


def test_error_of_rt_is_not_attributed_to_team_code(team: Team) -> None:
    run = Run([ExecutionRequest(forever, periodic=True)], None)
    run.stopped = None  # type: ignore[assignment]  # an error of rt
    with pytest.raises(AttributeError):
        team.execute(run)
    assert team.errors == []


def test_after_an_error_one_call_must_succeed_first(team: Team, keeper: Any) -> None:
    held: list[bool] = []

    def body(number: int, run: Run) -> None:
        held.append(bool(keeper.table.holders()))
        if number == 1:
            raise ValueError
        if number >= 3:
            run.stopped.set()

    periodic(team, body, keeper)
    assert held == [True, True, False, True]


def test_call_that_swallows_its_time_limit_loses_the_lease(team: Team, keeper: Any) -> None:
    held: list[bool] = []

    def body(_number: int, run: Run) -> None:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            with contextlib.suppress(BaseException):  # as a hostile program does
                forever()
        held.append(keeper.permitted)
        run.stopped.set()

    periodic(team, body, keeper)
    assert held == [False]


def test_call_that_extends_its_own_permission_loses_the_lease(team: Team, keeper: Any) -> None:
    held: list[bool] = []

    def body(_number: int, run: Run) -> None:
        keeper.unseal()
        keeper.grant()
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            with contextlib.suppress(BaseException):  # as a hostile program does
                forever()
        held.append(keeper.permitted)
        run.stopped.set()

    with structlog.testing.capture_logs() as logs:
        periodic(team, body, keeper)
    assert held == [False]
    assert sum("does not return" in entry["event"] for entry in logs) == 1


def test_after_two_timeouts_one_call_must_return_in_time(team: Team, keeper: Any) -> None:
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


def test_expired_permission_releases_the_lease_at_once(prefix: str) -> None:
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


def test_closed_lease_is_not_granted_again(prefix: str) -> None:
    wakeup = WriteEvent()
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        keeper = LeaseKeeper(table.lease(0), wakeup)
        keeper.heartbeat()
        keeper.close()
        keeper.grant()
        assert not table.holders()
    wakeup.close()


def test_replaced_signal_handler_is_restored(team: Team) -> None:
    def replace() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        sys.setswitchinterval(10)

    assert (
        team.execute(
            Run([ExecutionRequest(replace), ExecutionRequest(forever, timeout=0.05)], None)
        )
        is not None
    )
    assert team.errors == [("forever", TimeLimitError)]
    assert sys.getswitchinterval() < 1


def test_lease_is_not_held_without_an_event_loop(team: Team, prefix: str) -> None:
    """Main alone must not drive: nothing could stop it."""
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


def test_actions_keep_the_lease_without_a_main(team: Team, keeper: Any) -> None:
    def setup() -> None:
        pass

    run = Run([ExecutionRequest(setup)], keeper, hold=True)
    team.execute(run)
    assert keeper.permitted
    assert keeper.table.holders()
    team.executor.interrupt(run)
    assert not keeper.permitted
    assert not keeper.table.holders()


@pytest.mark.parametrize("file", ["x", str(Path(__file__).with_name("rt_fake.py"))])
def test_code_of_rt_is_never_interrupted(team: Team, file: str) -> None:
    """An alarm during code of rt is deferred until that code has ended."""
    from rt.executor import api

    finished: list[bool] = []

    class Slow:
        def __str__(self) -> str:
            return "text"

    def busy() -> None:
        # Code of rt, as the frame's module says, that takes longer than the limit.
        exec(
            compile(
                "import time\nend = time.monotonic() + 0.1\n"
                "while time.monotonic() < end: pass\nfinished.append(True)",
                file,
                "exec",
            ),
            {"__name__": "rt.fake", "finished": finished},
        )
        forever()

    assert api is not None
    team.execute(Run([ExecutionRequest(busy, timeout=0.02)], None))
    assert finished == [True]
    assert team.errors == [("busy", TimeLimitError)]
