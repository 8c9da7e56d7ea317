"""The executor's lease: what ends it, what begins it again, and what ends the mode."""

import contextlib
import os
from collections.abc import Iterator

import pytest
import structlog
import trio
import trio.testing
from trio.testing import MockClock

from rt.buffer import Doorbell, LeaseTable, lease
from rt.buffer.bells import EXECUTOR_SEAT
from rt.buffer.lease import DRIVER_BARS, TIMEOUT, Bar
from rt.diagnostics.run_delay import RunDelay
from rt.executor import lease as module
from rt.executor.lease import GAP_LIMIT, HANDOVER, UNBRAKED, LeaseKeeper

CUTOFFS = 3


class Bench:
    """A keeper whose clocks the test sets, and the table that its lease stands in."""

    def __init__(self, table: LeaseTable, bell: Doorbell, monkeypatch: pytest.MonkeyPatch, cutoffs: int) -> None:
        self.table = table
        self.now = 1000.0
        self.ended: list[str] = []
        monkeypatch.setattr(module, "monotonic", lambda: self.now)
        monkeypatch.setattr(lease, "boottime_ns", lambda: round(self.now * 1e9))
        self.waited = 0.0
        self.main_waited = 0.0
        self.keeper = LeaseKeeper(
            table.slot(EXECUTOR_SEAT),
            bell,
            cutoffs=cutoffs,
            on_end=self.ended.append,
            run_delay=lambda: lambda: self.waited,
            main_delay=lambda: lambda: self.main_waited,
        )
        self.keeper.beat()

    @property
    def moves(self) -> bool:
        self.table.beat()
        return bool(self.table.fresh())

    def run(self, seconds: float, *, step: float = 0.02, main: bool = True, root: bool = True) -> None:
        """Let time pass with both threads and the root at work, with a main that does not return, or with a silent root."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            if root:
                self.table.beat()
            if main:
                self.keeper.grant(self.now + 0.08)
            self.keeper.beat()


@pytest.fixture
def bench(prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with open_bench(prefix, monkeypatch) as bench:
        yield bench


@contextlib.contextmanager
def open_bench(prefix: str, monkeypatch: pytest.MonkeyPatch, cutoffs: int = CUTOFFS) -> Iterator[Bench]:
    bell = Doorbell()
    with LeaseTable.open(prefix) as table:
        yield Bench(table, bell, monkeypatch, cutoffs)
    bell.close()


def test_code_that_keeps_its_limits_keeps_the_lease(bench: Bench) -> None:
    bench.keeper.grant(bench.now + 0.08)
    mark = bench.table.mark(EXECUTOR_SEAT)
    bench.run(5)
    assert bench.moves
    assert bench.table.mark(EXECUTOR_SEAT) == mark
    assert not bench.ended


def test_code_that_does_not_return_loses_the_lease(bench: Bench) -> None:
    bench.run(1)
    bench.run(0.2, main=False)
    assert not bench.moves
    assert not bench.ended, "once may be bad luck"
    bench.run(1)
    assert bench.moves


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        (0.0, "the team's code does not return: every device is disabled until it does"),
        (0.3, "the team's code does not return: every device is disabled until it does"),
        (
            0.7,
            "the computer is busy, and the team's code does not return in time: every device is disabled until it does",
        ),
    ],
)
def test_a_cut_off_is_logged_with_its_cause_and_its_end(bench: Bench, share: float, sentence: str) -> None:
    bench.run(1)
    with structlog.testing.capture_logs() as logs:
        bench.keeper._log = structlog.get_logger()
        for _ in range(10):
            bench.now += 0.02
            bench.main_waited += share * 0.02
            bench.keeper.beat()
        assert not bench.moves
        bench.run(1)
    assert bench.moves
    assert [entry["event"] for entry in logs] == [sentence, "the team's code moves devices again"]


def test_an_event_loop_that_waits_for_a_processor_is_no_fault_of_the_code(bench: Bench) -> None:
    bench.run(1)
    with structlog.testing.capture_logs() as logs:
        bench.keeper._log = structlog.get_logger()
        bench.keeper.grant(bench.now + 1)
        bench.now += TIMEOUT + 0.05
        bench.waited += TIMEOUT
        bench.keeper.beat()
    assert logs[0]["event"].startswith("the computer is busy, and the process waited for the processor")


def test_code_that_does_not_return_again_and_again_ends_the_mode(bench: Bench) -> None:
    for _ in range(3):
        assert not bench.ended
        bench.run(0.3)
        bench.run(0.2, main=False)
    assert len(bench.ended) == 1
    bench.run(1)
    assert not bench.moves


@pytest.mark.parametrize("cutoffs", [1, 2, 5])
def test_an_option_says_how_many_cut_offs_end_the_mode(
    prefix: str, monkeypatch: pytest.MonkeyPatch, cutoffs: int
) -> None:
    with open_bench(prefix, monkeypatch, cutoffs) as bench:
        for _ in range(cutoffs):
            assert not bench.ended
            bench.run(0.3)
            bench.keeper.cut_off("main took too long again")
        assert bench.ended


def test_a_late_event_loop_is_a_cut_off(bench: Bench) -> None:
    for _ in range(3):
        assert not bench.ended
        bench.run(0.5)
        bench.now += TIMEOUT + 0.05
        bench.keeper.beat()
    assert bench.ended
    assert not bench.moves


@pytest.mark.parametrize("first", ["beat", "grant"])
def test_a_process_that_was_stopped_has_to_start_over(bench: Bench, first: str) -> None:
    bench.run(1)
    bench.now += GAP_LIMIT + 0.1  # as by SIGSTOP: neither thread ran
    if first == "grant":
        bench.keeper.grant(bench.now + 0.08)
    bench.keeper.beat()
    assert len(bench.ended) == 1
    bench.run(1)
    assert not bench.moves


def test_an_action_that_blocks_the_event_loop_for_long_is_one_cut_off(bench: Bench) -> None:
    bench.run(1)
    for _ in range(20):  # the main thread works while the event loop stands still
        bench.now += 0.05
        bench.keeper.grant(bench.now + 0.08)
    assert not bench.moves
    bench.keeper.beat()
    assert not bench.ended
    assert bench.moves


def test_what_the_root_has_ended_stays_ended(bench: Bench) -> None:
    bench.run(1)
    bench.table.revoke_all()
    bench.run(1)
    assert bench.ended
    assert not bench.moves


def test_want_of_a_brake_ends_the_mode_with_its_reason(bench: Bench) -> None:
    bench.run(1)
    bench.table.bar(EXECUTOR_SEAT, Bar.BRAKE)
    bench.table.unbar(EXECUTOR_SEAT)
    bench.run(1)
    assert bench.ended == [UNBRAKED]
    assert not bench.moves


@pytest.mark.parametrize("bar", sorted(DRIVER_BARS))
def test_an_absent_driver_suspends_the_lease(bench: Bench, bar: Bar) -> None:
    bench.run(1)
    bench.table.bar(EXECUTOR_SEAT, bar)
    bench.run(30)
    assert not bench.moves
    assert not bench.ended
    bench.table.unbar(EXECUTOR_SEAT)
    bench.run(0.1)
    assert bench.moves


def test_an_idle_slot_cannot_be_driven(bench: Bench) -> None:
    bench.table.bar(EXECUTOR_SEAT, Bar.IDLE)
    bench.keeper.grant()
    bench.run(1)
    assert not bench.moves


def test_no_grant_counts_while_a_call_is_limited(bench: Bench) -> None:
    """Team code that finds the keeper cannot give itself more time."""
    bench.keeper.grant(bench.now + 0.08, seal=True)
    bench.keeper.grant(1e18)
    bench.run(0.2, main=False)
    assert not bench.moves
    bench.keeper.unseal()
    bench.keeper.grant(bench.now + 0.08)
    assert bench.moves


def test_a_restart_disables_and_begins_another_lease(bench: Bench) -> None:
    bench.run(1)
    before = bench.table.mark(EXECUTOR_SEAT)
    bench.keeper.restart()
    assert not bench.moves
    bench.run(0.05)
    assert bench.moves
    assert bench.table.mark(EXECUTOR_SEAT) != before
    assert not bench.ended


def test_code_that_fails_again_and_again_ends_the_mode(bench: Bench) -> None:
    for count in range(1, CUTOFFS + 1):
        bench.run(0.5)
        assert bench.moves
        bench.keeper.fail()
        assert not bench.moves
        assert bool(bench.ended) == (count == CUTOFFS)
    assert "again and again" in bench.ended[0]
    bench.run(0.5)
    assert not bench.moves


def test_actions_that_fail_together_are_one_cut_off(bench: Bench) -> None:
    bench.run(1)
    for _ in range(2 * CUTOFFS):
        bench.keeper.restart()
    assert not bench.ended
    for _ in range(2 * CUTOFFS):
        bench.keeper.fail()
    bench.run(0.5)
    assert bench.moves


def test_a_lapse_that_the_device_process_saw_is_begun_again(bench: Bench) -> None:
    bench.run(1)
    bench.table.beat()
    (holder,) = bench.table.holders()
    bench.table.lapse(holder)  # as when the root was late for a moment
    bench.run(0.05)
    assert bench.moves
    assert not bench.ended


def test_a_driver_who_is_silent_between_two_beats_ends_no_mode(bench: Bench) -> None:
    bench.run(1)
    bench.table.bar(EXECUTOR_SEAT, Bar.DRIVER)  # control was handed over, and the next driver's sticks were at rest
    bench.table.unbar(EXECUTOR_SEAT)
    assert not bench.moves
    bench.run(0.1)
    assert bench.moves
    assert not bench.ended


def test_a_root_that_is_late_again_and_again_ends_the_mode(bench: Bench) -> None:
    for _ in range(CUTOFFS):
        assert not bench.ended
        bench.run(0.3)
        bench.table.beat()
        (holder,) = bench.table.holders()
        bench.table.lapse(holder)
        bench.keeper.beat()
    assert bench.ended
    assert not bench.moves


def test_nothing_moves_again_in_the_log_while_the_root_is_silent(bench: Bench) -> None:
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
    assert [entry["event"] for entry in logs] == [late, "the team's code moves devices again"]


def test_a_root_that_stood_still_ends_the_mode_when_it_is_back(bench: Bench) -> None:
    bench.run(1)
    (holder,) = bench.table.holders()
    bench.run(0.2, root=False)
    bench.table.lapse(holder)
    bench.run(1, root=False)
    assert not bench.ended
    bench.table.revoke_all(Bar.STALLED)
    bench.run(0.1)
    assert not bench.moves
    assert bench.ended == ["the robot's main process stood still: start the mode again"]


async def test_lease_of_a_mode_that_is_over_is_left_to_the_root(bench: Bench) -> None:
    bench.keeper.grant(bench.now + 0.08)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.keeper.hand_over, 30.0)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.moves, "the root ends it, so that the log says why"
        bench.table.bar(EXECUTOR_SEAT, Bar.IDLE)
    assert not bench.moves
    bench.run(1)
    assert not bench.moves
    assert not bench.ended


async def test_lease_of_a_mode_that_is_over_does_not_wait_long_for_the_root(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.keeper.grant(bench.now + 0.08)
    before = trio.current_time()
    await bench.keeper.hand_over()
    assert trio.current_time() - before == pytest.approx(HANDOVER)
    assert not bench.moves


def test_a_process_that_waited_for_the_processor_drives_on(bench: Bench) -> None:
    for _ in range(CUTOFFS - 1):
        bench.run(1)
        bench.now += GAP_LIMIT + 0.6
        bench.waited += GAP_LIMIT + 0.4
        bench.keeper.beat()
        assert not bench.moves
        bench.run(0.1)
        assert bench.moves
    assert not bench.ended


def test_the_time_of_waiting_for_a_processor_grows_on_a_busy_one() -> None:
    delay = RunDelay()
    try:
        before = delay.read()
        for _ in range(1000):
            os.sched_yield()
        assert before <= delay.read() < 1e6
    finally:
        delay.close()
    assert delay.read() == 0.0
