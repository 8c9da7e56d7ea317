import time
from pathlib import Path

import pytest

from rt.buffer import LeaseTable, lease, segment
from rt.buffer.bells import EXECUTOR_SEAT
from rt.buffer.clock import boottime_ns
from rt.errors import DeviceBufferError


def test_nobody_holds_a_lease_at_first(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.beat()
        assert not table.fresh()
        assert table.holders() == []


def test_a_lease_is_fresh_until_it_is_released(prefix: str) -> None:
    with LeaseTable.open(prefix) as ours, LeaseTable.open(prefix, create=False) as theirs:
        ours.beat()
        slot = ours.slot(EXECUTOR_SEAT)
        assert slot.renew()
        assert not slot.renew()
        assert theirs.fresh()
        assert 0 < theirs.remaining() <= lease.TIMEOUT
        assert slot.release()
        assert not theirs.fresh()
        assert not slot.release()


def test_silence_is_a_lapse(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LeaseTable.open(prefix) as table:
        table.beat()
        table.slot(3).renew()
        later = boottime_ns() + round(lease.TIMEOUT * 1e9) + 1
        monkeypatch.setattr(lease, "boottime_ns", lambda: later)
        assert not table.fresh()
        assert table.holders() == []


def test_a_lease_that_was_revoked_has_to_begin_again(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.beat()
        slot = table.slot(1)
        slot.renew()
        (holder,) = table.holders()
        assert table.revoke(holder)
        assert not table.fresh()
        assert slot.renew()


def test_a_lease_that_has_ended_does_not_go_on(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LeaseTable.open(prefix) as table:
        table.beat()
        slot = table.slot(3)
        marks = []
        slot.renew()
        marks.append(slot.mark)
        slot.release()
        assert slot.renew(), "given up, and begun again"
        marks.append(slot.mark)
        assert not slot.renew()
        later = boottime_ns() + round(lease.TIMEOUT * 1e9)
        monkeypatch.setattr(lease, "boottime_ns", lambda: later)
        assert slot.renew(), "nobody noticed that it had lapsed, and it had all the same"
        marks.append(slot.mark)
        assert len(set(marks)) == 3
        assert {seat for mark in marks for seat in lease.seats_of(1 << mark)} == {3}
        table.beat()
        assert table.fresh() == 1 << marks[-1]


def test_only_the_lease_that_was_meant_is_taken_away(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.beat()
        slot = table.slot(8)
        slot.renew()
        (before,) = table.holders()
        slot.release()
        slot.renew()  # the seat's next visitor
        assert not table.revoke(before)
        assert table.fresh()


def test_stamps_are_of_the_clock_that_goes_on_while_the_machine_is_suspended() -> None:
    assert boottime_ns() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) <= boottime_ns()


def test_what_is_no_lease_table_is_refused(prefix: str) -> None:
    with pytest.raises(DeviceBufferError, match="no buffer"), LeaseTable.open(prefix, create=False):
        pass
    Path(f"/dev/shm/{prefix}lease").write_bytes(b"x" * 10)
    with pytest.raises(DeviceBufferError, match="not a lease table"), LeaseTable.open(prefix):
        pass


def test_no_lease_counts_without_a_sign_of_life_of_the_root(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LeaseTable.open(prefix) as table:
        table.slot(0).renew()
        assert not table.fresh()
        assert table.holders() == []
        table.beat()
        assert table.fresh()
        later = boottime_ns() + round(lease.ROOT_TIMEOUT * 1e9) + 1
        monkeypatch.setattr(lease, "boottime_ns", lambda: later)
        table.slot(0).renew()
        assert not table.fresh()
        assert not table.root_alive()


def test_stamps_of_the_future_count_as_none(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LeaseTable.open(prefix) as table:
        table.beat()
        monkeypatch.setattr(lease, "boottime_ns", lambda: boottime_ns() + 10**12)
        table.slot(0).renew()
        monkeypatch.undo()
        assert not table.fresh()
        assert table.holders() == []


def test_a_table_that_is_there_is_opened_without_asking_for_memory(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LeaseTable.open(prefix):
        monkeypatch.setattr(segment, "create", None)
        with LeaseTable.open(prefix):
            pass
