"""Why writes are dropped is logged as it is, once for each reason, and at a bounded rate."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from rt.buffer import LeaseTable
from rt.buffer.lease import ALL_TOKENS, DRIVER_BARS, Bar
from rt.buffer.wakeup import EXECUTOR_SLOT, STANDBY_SLOT
from rt.smartdevice.guard import SafetyGuard

FAILED = "a function of the team's code failed, came late or ended: a line of its own says which"


def reasons(events: list[Any]) -> list[str]:
    return [
        event["event"].partition("dropped: ")[2]
        for event in events
        if "are dropped" in event["event"]
    ]


@pytest.mark.parametrize(
    ("bar", "part"),
    [
        (Bar.IDLE, "no mode is running"),
        (Bar.ESTOP, "emergency stop"),
        *((bar, "waits for its driver") for bar in sorted(DRIVER_BARS)),
        (Bar.BRAKE, "the brake, which would disable devices if this process ended, is not ready"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_barred_writes_are_dropped_for_the_reason_of_the_bar(
    prefix: str, bar: Bar, part: str, known: bool
) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(0).begin()
        table.bar(0, bar)
        guard.note_dropped("line", 1, 1 << table.token(0) if known else ALL_TOKENS)
    assert [part in reason for reason in reasons(events)] == [True]


def test_suspended_lease_is_never_called_idle(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        lease = table.lease(0)
        lease.begin()
        token = 1 << lease.token
        lease.release()
        guard.note_dropped("line", 1, token)
        lease.begin()
        assert table.lapse(table.current()[0])
        guard.note_dropped("line", 1, 1 << lease.token)
        table.revoke_slot(0)
        guard.note_dropped("line", 1, 1 << lease.token)
        guard.note_dropped("line", 1, token)
    first, second, third, fourth = reasons(events)
    assert (
        "the team's code is cut off from the devices until one of its functions ends in time"
        in first
    )
    assert "no sign of life" in second
    assert "the robot was told to stop" in third
    assert "was cut off" in fourth


def test_writer_without_any_lease_is_told(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        guard.note_dropped("line", 1, 1 << table.token(9))
        guard.note_dropped("line", 2, 1 << table.token(9))
    (reason,) = reasons(events)
    assert "never asked for a lease" in reason


def test_silent_root_is_the_reason_where_no_slot_is_barred(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        guard.note_dropped("line", 1, ALL_TOKENS)
        table.bar(0, Bar.IDLE)
        guard.note_dropped("line", 1, ALL_TOKENS)
    assert reasons(events) == ["the robot's main process does not answer", "no mode is running"]


def test_lease_that_begins_and_ends_again_and_again_is_logged_at_a_bounded_rate(
    prefix: str,
) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        lease = table.lease(0)
        for _ in range(500):
            table.heartbeat()
            lease.begin()
            assert guard.is_open
            lease.release()
            guard.check()
            guard.note_dropped("line", 1, 1 << lease.token)
    assert 10 < len(events) <= 60


@pytest.mark.parametrize(
    ("slot", "other", "sentence", "reason"),
    [
        (9, EXECUTOR_SLOT, "the devices that rt write moved are disabled", "rt write has ended"),
        (5, EXECUTOR_SLOT, "the devices that a component moved are disabled", "it has ended"),
        (EXECUTOR_SLOT, 9, "the devices that team code moved are disabled", FAILED),
        (STANDBY_SLOT, 9, "the devices that team code moved are disabled", FAILED),
    ],
)
def test_who_moved_the_devices_that_are_disabled_is_logged(
    prefix: str, slot: int, other: int, sentence: str, reason: str
) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(other).begin()
        table.lease(slot).begin()
        assert guard.is_open
        table.lease(slot).release()
        guard.check()
    assert [(event["event"], event["reason"]) for event in events] == [(sentence, reason)]


def test_writes_of_a_mode_that_has_ended_are_dropped_for_that_reason(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(0).begin()
        assert guard.is_open
        table.bar(0, Bar.IDLE)
        guard.check()
        guard.note_dropped("line", 1, 1 << table.token(0))
    assert [event["reason"] for event in events if "disabled" in event["event"]] == [
        "the mode has ended"
    ]
    assert reasons(events) == ["the mode has ended, and no mode is running"]


@pytest.mark.parametrize(
    ("bar", "reason"),
    [
        (Bar.DRIVER, "the driver's station is silent"),
        (Bar.TAKEN, "control was taken over"),
        (Bar.RELEASED, "control was released"),
        (Bar.HELD, "a gamepad joined whose sticks were not at rest"),
    ],
)
def test_devices_are_disabled_for_what_happened_to_the_driver(
    prefix: str, bar: Bar, reason: str
) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(EXECUTOR_SLOT).begin()
        assert guard.is_open
        table.bar(EXECUTOR_SLOT, bar)
        guard.check()
    assert [event["reason"] for event in events] == [reason]


def test_a_visitor_that_leaves_ends_no_mode(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(9).begin()
        assert guard.is_open
        table.bar(9, Bar.IDLE)  # as the desk does when the visitor has left
        guard.check()
    assert [event["reason"] for event in events] == ["rt write has ended"]
