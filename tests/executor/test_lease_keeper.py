"""LeaseKeeper: what ends the lease, what begins it again, and what ends the mode."""

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from support.leases import LeaseClock
from trio.testing import MockClock

from rt.buffer import LeaseTable
from rt.buffer.lease import DRIVER_BARS, TIMEOUT, Bar
from rt.buffer.wakeup import EXECUTOR_SLOT
from rt.buffer.write_event import WriteEvent
from rt.diagnostics.run_delay import RunDelay
from rt.executor import fork
from rt.executor.lease import (
    CUTOFF_WINDOW,
    GAP_LIMIT,
    NO_BRAKE,
    NOT_RETURNING,
    REVOKE_LIMIT,
    CutoffCounter,
    LeaseKeeper,
)

CUTOFFS = 3


class Bench:
    """A keeper whose clocks the test sets, and its lease table."""

    def __init__(
        self, table: LeaseTable, clock: LeaseClock, wakeup: WriteEvent, cutoffs: int
    ) -> None:
        self.table = table
        self.clock = clock
        self.ended: list[str] = []
        self.waited = 0.0
        self.main_waited = 0.0
        self.keeper = LeaseKeeper(
            table.lease(EXECUTOR_SLOT),
            wakeup,
            cutoffs=cutoffs,
            clock=lambda: self.now,
            run_delay=lambda: self.waited,
            main_delay=lambda: self.main_waited,
        )
        self.keeper.on_end = self.ended.append
        self.keeper.heartbeat()

    @property
    def now(self) -> float:
        return self.clock.now / 1e9

    @now.setter
    def now(self, now: float) -> None:
        self.clock.now = round(now * 1e9)

    @property
    def moves(self) -> bool:
        self.table.heartbeat()
        return bool(self.table.fresh_tokens())

    def run(
        self, seconds: float, *, step: float = 0.02, main: bool = True, root: bool = True
    ) -> None:
        """Advance the time with both threads and the root working.

        Args:
            seconds: How far.
            step: Time between two heartbeats, in s.
            main: Whether main returns.
            root: Whether the root responds.
        """
        end = self.now + seconds
        while self.now < end:
            self.now += step
            if root:
                self.table.heartbeat()
            if main:
                self.keeper.grant(self.now + 0.08)
            self.keeper.heartbeat()


@pytest.fixture
def bench(prefix: str) -> Iterator[Bench]:
    with open_bench(prefix) as bench:
        yield bench


@contextlib.contextmanager
def open_bench(prefix: str, cutoffs: int = CUTOFFS) -> Iterator[Bench]:
    wakeup = WriteEvent()
    clock = LeaseClock()
    with LeaseTable.open(prefix, clock=clock) as table:
        yield Bench(table, clock, wakeup, cutoffs)
    wakeup.close()


def test_code_within_its_limits_keeps_the_lease(bench: Bench) -> None:
    bench.keeper.grant(bench.now + 0.08)
    assert bench.keeper.permitted
    token = bench.table.token(EXECUTOR_SLOT)
    bench.run(5)
    assert bench.moves
    assert bench.table.token(EXECUTOR_SLOT) == token
    assert not bench.ended


def test_code_that_does_not_return_loses_the_lease(bench: Bench) -> None:
    bench.run(1)
    bench.run(0.2, main=False)
    assert not bench.moves
    assert not bench.keeper.permitted
    assert not bench.ended, "one cut-off does not end the mode"
    bench.run(1)
    assert bench.moves


@pytest.mark.parametrize(
    ("share", "event"),
    [
        (0.0, "team code does not return: every device is disabled until it does"),
        (0.3, NOT_RETURNING),
        (0.7, f"the computer is busy: {NOT_RETURNING}"),
    ],
)
def test_cutoff_is_logged_with_its_cause_and_its_end(
    bench: Bench, share: float, event: str
) -> None:
    bench.run(1)
    with structlog.testing.capture_logs() as logs:
        bench.keeper._log = structlog.get_logger()
        for _ in range(10):
            bench.now += 0.02
            bench.main_waited += share * 0.02
            bench.keeper.heartbeat()
        assert not bench.moves
        bench.run(1)
    assert bench.moves
    assert [entry["event"] for entry in logs] == [event, "team code moves devices again"]


def test_waiting_for_a_processor_is_not_blamed_on_the_code(bench: Bench) -> None:
    bench.run(1)
    with structlog.testing.capture_logs() as logs:
        bench.keeper._log = structlog.get_logger()
        bench.keeper.grant(bench.now + 1)
        bench.now += TIMEOUT + 0.05
        bench.waited += TIMEOUT
        bench.keeper.heartbeat()
    assert logs[0]["event"].startswith("the computer is busy: the executor waited for a processor")


def test_repeated_failure_to_return_ends_the_mode(bench: Bench) -> None:
    for _ in range(3):
        assert not bench.ended
        bench.run(0.3)
        bench.run(0.2, main=False)
    assert len(bench.ended) == 1
    bench.run(1)
    assert not bench.moves


@pytest.mark.parametrize("cutoffs", [1, 2, 5])
def test_option_sets_how_many_cutoffs_end_the_mode(prefix: str, cutoffs: int) -> None:
    with open_bench(prefix, cutoffs) as bench:
        for _ in range(cutoffs):
            assert not bench.ended
            bench.run(0.3)
            bench.keeper.cut_off("main took too long again")
        assert bench.ended


def test_late_event_loop_is_a_cutoff(bench: Bench) -> None:
    for _ in range(3):
        assert not bench.ended
        bench.run(0.5)
        bench.now += TIMEOUT + 0.05
        bench.keeper.heartbeat()
    assert bench.ended
    assert not bench.moves


@pytest.mark.parametrize("first", ["heartbeat", "grant"])
def test_stopped_process_ends_its_mode(bench: Bench, first: str) -> None:
    bench.run(1)
    bench.now += GAP_LIMIT + 0.1  # as by SIGSTOP: neither thread ran
    if first == "grant":
        bench.keeper.grant(bench.now + 0.08)
    bench.keeper.heartbeat()
    assert len(bench.ended) == 1
    bench.run(1)
    assert not bench.moves


def test_action_that_blocks_the_event_loop_is_one_cutoff(bench: Bench) -> None:
    bench.run(1)
    for _ in range(20):  # the main thread works while the event loop is blocked
        bench.now += 0.05
        bench.keeper.grant(bench.now + 0.08)
    assert not bench.moves
    bench.keeper.heartbeat()
    assert not bench.ended
    assert bench.moves


def test_lease_that_the_root_revoked_stays_ended(bench: Bench) -> None:
    bench.run(1)
    bench.table.revoke_all()
    bench.run(1)
    assert bench.ended
    assert not bench.moves


def test_missing_brake_ends_the_mode_with_its_reason(bench: Bench) -> None:
    bench.run(1)
    bench.table.bar(EXECUTOR_SLOT, Bar.BRAKE)
    bench.table.unbar(EXECUTOR_SLOT)
    bench.run(1)
    assert bench.ended == [NO_BRAKE]
    assert not bench.moves


@pytest.mark.parametrize("bar", sorted(DRIVER_BARS))
def test_absent_driver_suspends_the_lease(bench: Bench, bar: Bar) -> None:
    bench.run(1)
    bench.table.bar(EXECUTOR_SLOT, bar)
    bench.run(30)
    assert not bench.moves
    assert not bench.ended
    bench.table.unbar(EXECUTOR_SLOT)
    bench.run(0.1)
    assert bench.moves


def test_idle_slot_cannot_be_driven(bench: Bench) -> None:
    bench.table.bar(EXECUTOR_SLOT, Bar.IDLE)
    bench.keeper.grant()
    bench.run(1)
    assert not bench.moves


def test_grants_are_ignored_during_a_call(bench: Bench) -> None:
    """Team code that reaches the keeper cannot extend its time."""
    bench.keeper.grant(bench.now + 0.08, seal=True)
    bench.keeper.grant(1e18)
    bench.run(0.2, main=False)
    assert not bench.moves
    bench.keeper.unseal()
    bench.keeper.grant(bench.now + 0.08)
    assert bench.moves


def test_restart_disables_devices_and_begins_another_lease(bench: Bench) -> None:
    bench.run(1)
    before = bench.table.token(EXECUTOR_SLOT)
    bench.keeper.restart()
    assert not bench.moves
    bench.run(0.05)
    assert bench.moves
    assert bench.table.token(EXECUTOR_SLOT) != before
    assert not bench.ended


def test_repeated_failures_end_the_mode(bench: Bench) -> None:
    for count in range(1, CUTOFFS + 1):
        bench.run(0.5)
        assert bench.moves
        bench.keeper.fail()
        assert not bench.moves
        assert bool(bench.ended) == (count == CUTOFFS)
    assert "too often" in bench.ended[0]
    bench.run(0.5)
    assert not bench.moves


def test_actions_that_fail_together_are_one_cutoff(bench: Bench) -> None:
    bench.run(1)
    for _ in range(2 * CUTOFFS):
        bench.keeper.restart()
    assert not bench.ended
    for _ in range(2 * CUTOFFS):
        bench.keeper.fail()
    bench.run(0.5)
    assert bench.moves


def test_lapsed_lease_is_begun_again(bench: Bench) -> None:
    bench.run(1)
    bench.table.heartbeat()
    (holder,) = bench.table.holders()
    bench.table.lapse(holder)  # as if the root had been late
    bench.run(0.05)
    assert bench.moves
    assert not bench.ended


def test_driver_absent_between_two_heartbeats_does_not_end_the_mode(bench: Bench) -> None:
    bench.run(1)
    # As when control is handed over to a driver whose sticks are at rest.
    bench.table.bar(EXECUTOR_SLOT, Bar.DRIVER)
    bench.table.unbar(EXECUTOR_SLOT)
    assert not bench.moves
    bench.run(0.1)
    assert bench.moves
    assert not bench.ended


def test_repeatedly_late_root_ends_the_mode(bench: Bench) -> None:
    for _ in range(CUTOFFS):
        assert not bench.ended
        bench.run(0.3)
        bench.table.heartbeat()
        (holder,) = bench.table.holders()
        bench.table.lapse(holder)
        bench.keeper.heartbeat()
    assert bench.ended
    assert not bench.moves


def test_log_reports_no_motion_while_the_root_is_silent(bench: Bench) -> None:
    bench.run(1)
    (holder,) = bench.table.holders()
    with structlog.testing.capture_logs() as logs:
        bench.keeper._log = structlog.get_logger()
        bench.run(0.2, root=False)
        bench.table.lapse(holder)
        bench.run(1, root=False)
        late = "the robot's main process does not respond: every device is disabled until it does"
        assert [entry["event"] for entry in logs] == [late]
        bench.run(0.1)
    assert bench.moves
    assert [entry["event"] for entry in logs] == [late, "team code moves devices again"]


def test_stalled_root_ends_the_mode_when_it_continues(bench: Bench) -> None:
    bench.run(1)
    (holder,) = bench.table.holders()
    bench.run(0.2, root=False)
    bench.table.lapse(holder)
    bench.run(1, root=False)
    assert not bench.ended
    bench.table.revoke_all(Bar.STALLED)
    bench.run(0.1)
    assert not bench.moves
    assert bench.ended == ["the robot's main process was suspended: start the mode again"]


async def test_root_revokes_the_lease_of_a_finished_mode(bench: Bench) -> None:
    bench.keeper.grant(bench.now + 0.08)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.keeper.wait_revoked, 30.0)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.moves, "the root revokes it, so that the log has the reason"
        bench.table.bar(EXECUTOR_SLOT, Bar.IDLE)
    assert not bench.moves
    bench.run(1)
    assert not bench.moves
    assert not bench.ended


async def test_wait_for_the_root_to_revoke_is_bounded(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.keeper.grant(bench.now + 0.08)
    before = trio.current_time()
    await bench.keeper.wait_revoked()
    assert trio.current_time() - before == pytest.approx(REVOKE_LIMIT)
    assert not bench.moves


def test_process_that_waited_for_a_processor_drives_again(bench: Bench) -> None:
    for _ in range(CUTOFFS - 1):
        bench.run(1)
        bench.now += GAP_LIMIT + 0.6
        bench.waited += GAP_LIMIT + 0.4
        bench.keeper.heartbeat()
        assert not bench.moves
        bench.run(0.1)
        assert bench.moves
    assert not bench.ended


def test_run_delay_grows_on_a_busy_processor() -> None:
    delay = RunDelay()
    try:
        before = delay.read()
        for _ in range(1000):
            os.sched_yield()
        assert before <= delay.read() < 1e6
    finally:
        delay.close()
    assert delay.read() == 0.0


@given(st.integers(1, 6), st.lists(st.floats(0, 8), max_size=40))
def test_limit_of_cutoffs_in_one_window_ends_the_mode(limit: int, pauses: list[float]) -> None:
    counter = CutoffCounter(limit)
    now = 0.0
    times: list[float] = []
    for pause in pauses:
        now += pause
        times.append(now)
        recent = [time for time in times if time > now - CUTOFF_WINDOW]
        assert counter.add(now) == (len(recent) >= limit)


def test_rare_cutoffs_do_not_end_the_mode() -> None:
    counter = CutoffCounter(2)
    assert not any(counter.add(number * (CUTOFF_WINDOW + 1)) for number in range(1000))


def test_end_of_a_closed_keeper_is_not_reported(bench: Bench) -> None:
    bench.run(1)
    bench.keeper.close()
    bench.now += GAP_LIMIT + 0.1  # as by SIGSTOP
    bench.keeper.heartbeat()
    bench.keeper.grant(bench.now + 0.08)
    assert not bench.moves
    assert not bench.ended


CHANGES: dict[str, Callable[[LeaseKeeper], None]] = {
    "grant": LeaseKeeper.grant,
    "revoke": LeaseKeeper.revoke,
    "restart": LeaseKeeper.restart,
    "fail": LeaseKeeper.fail,
    "heartbeat": LeaseKeeper.heartbeat,
}


@pytest.mark.parametrize("change", CHANGES)
def test_fork_changes_no_lease(bench: Bench, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork shares the table's memory, so its changes would reach the device process."""
    bench.run(1)
    stamps = bench.table.stamps.tolist()
    bench.now += 0.01
    with monkeypatch.context() as patch:
        patch.setattr(fork._Process, "forked", True)
        CHANGES[change](bench.keeper)
    assert bench.table.stamps.tolist() == stamps


async def pass_time(bench: Bench) -> None:
    """Let the keeper's clock follow trio's."""
    began = bench.now - trio.current_time()
    while True:
        await trio.sleep(0.01)
        bench.now = began + trio.current_time()
        bench.table.heartbeat()


async def test_event_loop_renews_the_lease_until_it_ends(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_time, bench)
        await nursery.start(bench.keeper.run)
        bench.keeper.grant()
        token = bench.table.token(EXECUTOR_SLOT)
        await trio.sleep(5)
        assert bench.moves
        assert bench.table.token(EXECUTOR_SLOT) == token
        nursery.cancel_scope.cancel()
    assert not bench.moves
    assert not bench.ended


async def test_forked_event_loop_exits(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    bench.keeper.grant()
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(fork._Process, "forked", True)
    with pytest.raises(SystemExit, match="0"):
        await bench.keeper.run()
    assert bench.moves, "the executor keeps its lease"
