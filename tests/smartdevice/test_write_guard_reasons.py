"""The logged reason of dropped writes: the actual one, once for each reason, at a bounded rate."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from rt.buffer import LeaseTable
from rt.buffer.lease import ALL_TOKENS, DRIVER_BARS, Bar
from rt.buffer.wakeup import EXECUTOR_SLOT, STANDBY_SLOT
from rt.smartdevice.write_guard import SafetyGuard

FAILED = "team code failed, exceeded its time or ended; a separate log entry says which"


def reasons(events: list[Any]) -> list[str]:
    return [event["reason"] for event in events if event["event"] == "writes dropped"]


@pytest.mark.parametrize(
    ("bar", "part"),
    [
        (Bar.IDLE, "no mode is running"),
        (Bar.ESTOP, "emergency stop"),
        *((bar, "waiting for the driver") for bar in sorted(DRIVER_BARS)),
        (Bar.BRAKE, "the brake process is not ready"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_barred_writes_are_dropped_with_reason_of_bar(
    prefix: str, bar: Bar, part: str, known: bool
) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(0).begin()
        table.bar(0, bar)
        guard.note_dropped("line", 1, 1 << table.token(0) if known else ALL_TOKENS)
    assert [part in reason for reason in reasons(events)] == [True]


def test_reason_follows_state_of_lease(prefix: str) -> None:
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
    assert "team code may not write until a call returns in time" in first
    assert "was not renewed" in second
    assert "the robot was stopped" in third
    assert "ended before the values were sent" in fourth


def test_writes_of_a_session_after_its_release_name_the_release(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(9).begin()
        table.lease(9).release()
        guard.note_dropped("line", 1, 1 << table.token(9))
    assert reasons(events) == ["the writer released its lease"]


def test_writer_without_lease_is_logged_once(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        guard.note_dropped("line", 1, 1 << table.token(9))
        guard.note_dropped("line", 2, 1 << table.token(9))
    (reason,) = reasons(events)
    assert "never acquired a lease" in reason


def test_silent_root_is_the_reason_unless_slot_is_barred(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        guard.note_dropped("line", 1, ALL_TOKENS)
        table.bar(0, Bar.IDLE)
        guard.note_dropped("line", 1, ALL_TOKENS)
    assert reasons(events) == ["the robot's main process does not respond", "no mode is running"]


def test_flapping_lease_is_logged_at_bounded_rate(prefix: str) -> None:
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
    ("slot", "other", "writer", "reason"),
    [
        (9, EXECUTOR_SLOT, "rt write", "rt write ended"),
        (5, EXECUTOR_SLOT, "a component", "the writer released its lease"),
        (EXECUTOR_SLOT, 9, "team code", FAILED),
        (STANDBY_SLOT, 9, "team code", FAILED),
    ],
)
def test_disabled_devices_are_logged_with_their_writer(
    prefix: str, slot: int, other: int, writer: str, reason: str
) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(other).begin()
        table.lease(slot).begin()
        assert guard.is_open
        table.lease(slot).release()
        guard.check()
    assert [(event["event"], event["writer"], event["reason"]) for event in events] == [
        ("devices disabled", writer, reason)
    ]


def test_writes_of_ended_mode_are_dropped_with_that_reason(prefix: str) -> None:
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
        (Bar.DRIVER, "the driver station is silent"),
        (Bar.TAKEN, "control was taken over"),
        (Bar.RELEASED, "control was released"),
        (Bar.HELD, "a gamepad joined with its sticks not at rest"),
    ],
)
def test_driver_bar_is_logged_as_reason_for_disabling(prefix: str, bar: Bar, reason: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(EXECUTOR_SLOT).begin()
        assert guard.is_open
        table.bar(EXECUTOR_SLOT, bar)
        guard.check()
    assert [event["reason"] for event in events] == [reason]


def test_end_of_session_is_not_logged_as_end_of_mode(prefix: str) -> None:
    with LeaseTable.open(prefix) as table, capture_logs() as events:
        guard = SafetyGuard(table, lambda _ended, _moved: None)
        table.heartbeat()
        table.lease(9).begin()
        assert guard.is_open
        table.bar(9, Bar.IDLE)  # as the registrar does at the end of a session
        guard.check()
    assert [event["reason"] for event in events] == ["rt write ended"]
