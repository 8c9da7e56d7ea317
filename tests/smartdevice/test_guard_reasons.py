"""Why writes are dropped is logged as it is, once for each reason, and at a bounded rate."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from rt.buffer import LeaseTable
from rt.buffer.lease import ALL_MARKS, Bar
from rt.smartdevice.guard import SafetyGuard


def reasons(events: list[Any]) -> list[str]:
    return [event["event"].partition("dropped: ")[2] for event in events if "are dropped" in event["event"]]


@pytest.mark.parametrize(
    ("bar", "part"),
    [(Bar.IDLE, "no mode is running"), (Bar.DRIVER, "waits for its driver"), (Bar.ESTOP, "emergency stop")],
)
@pytest.mark.parametrize("known", [True, False])
def test_barred_writes_are_dropped_for_the_reason_of_the_bar(prefix: str, bar: Bar, part: str, known: bool) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.beat()
        table.slot(0).begin()
        table.bar(0, bar)
        guard.dropped("line", 1, 1 << table.mark(0) if known else ALL_MARKS)
    assert [part in reason for reason in reasons(events)] == [True]


def test_suspended_lease_is_never_called_idle(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.beat()
        lease = table.slot(0)
        lease.begin()
        mark = 1 << lease.mark
        lease.release()
        guard.dropped("line", 1, mark)
        lease.begin()
        assert table.lapse(table.current()[0])
        guard.dropped("line", 1, 1 << lease.mark)
        table.revoke_slot(0)
        guard.dropped("line", 1, 1 << lease.mark)
        guard.dropped("line", 1, mark)
    first, second, third, fourth = reasons(events)
    assert "late or has failed" in first
    assert "not renewed in time" in second
    assert "the root ended" in third
    assert "has ended" in fourth


def test_writer_without_any_lease_is_told(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.beat()
        guard.dropped("line", 1, 1 << table.mark(9))
        guard.dropped("line", 2, 1 << table.mark(9))
    (reason,) = reasons(events)
    assert "never held a lease" in reason


def test_silent_root_is_the_reason_before_all_others(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.bar(0, Bar.IDLE)
        guard.dropped("line", 1, ALL_MARKS)
    (reason,) = reasons(events)
    assert reason == "the root does not answer"


def test_lease_that_begins_and_ends_again_and_again_is_logged_at_a_bounded_rate(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        lease = table.slot(0)
        for _ in range(500):
            table.beat()
            lease.begin()
            assert guard.open
            lease.release()
            guard.look()
            guard.dropped("line", 1, 1 << lease.mark)
    assert 10 < len(events) <= 60
