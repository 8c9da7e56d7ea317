import time

import pytest
from support.leases import LeaseClock, keep

from rt.buffer import LeaseTable, lease, segment
from rt.buffer.clock import boottime_ns
from rt.buffer.lease import Bar
from rt.buffer.wakeup import EXECUTOR_SLOT, SLOTS
from rt.errors import DeviceBufferError


def test_new_table_has_no_holders(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        assert not table.fresh_tokens()
        assert table.holders() == []


def test_lease_is_fresh_until_released(prefix: str) -> None:
    with LeaseTable.open(prefix) as ours, LeaseTable.open(prefix, create=False) as theirs:
        ours.heartbeat()
        slot = ours.lease(EXECUTOR_SLOT)
        assert not slot.renew(), "not begun yet"
        assert slot.begin()
        assert slot.renew()
        assert theirs.fresh_tokens()
        assert 0 < theirs.remaining() <= lease.TIMEOUT
        assert slot.release()
        assert not theirs.fresh_tokens()
        assert not slot.release()
        assert not slot.renew()


def test_lease_lapses_without_renewal(prefix: str) -> None:
    clock = LeaseClock()
    with LeaseTable.open(prefix, root_timeout=600.0, clock=clock) as table:
        table.heartbeat()
        table.lease(3).begin()
        assert table.fresh_tokens()
        clock.advance(lease.TIMEOUT)
        assert not table.fresh_tokens()
        assert table.holders() == []
        assert not table.lease(3).renew(), "a lapsed lease cannot be renewed"


def test_ended_lease_cannot_be_renewed(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        slot = table.lease(1)
        slot.begin()
        (holder,) = table.holders()
        assert table.lapse(holder)
        assert not table.lapse(holder), "already ended"
        assert not table.fresh_tokens()
        assert not slot.renew()
        assert slot.begin()
        assert table.fresh_tokens()


def test_revoke_all_ends_every_lease(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        slots = [table.lease(index) for index in (0, 8, 15)]
        for slot in slots:
            slot.begin()
        table.revoke_all()
        assert not table.fresh_tokens()
        assert table.holders() == []
        for slot in slots:
            assert slot.revoked
            assert not slot.renew()
            assert slot.begin()
            assert not slot.revoked
        assert len(table.holders()) == 3


def test_late_stamp_does_not_restore_a_revoked_lease(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        table.lease(4).begin()
        table.revoke_all()
        table.stamps[4] = boottime_ns()  # the holder checked before, and stamps after
        assert not table.fresh_tokens()


@pytest.mark.parametrize("bar", [bar for bar in lease.Bar if bar])
def test_no_lease_is_valid_in_a_barred_slot(prefix: str, bar: lease.Bar) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        slot, other = table.lease(0), table.lease(1)
        slot.begin()
        other.begin()
        table.bar(0, bar)
        assert slot.bar is bar
        assert not slot.renew()
        assert not slot.begin()
        assert table.fresh_tokens() == 1 << other.token
        table.unbar(0)
        assert not slot.renew(), "an ended lease does not continue"
        assert slot.begin() == (bar not in {lease.Bar.ESTOP, lease.Bar.STOPPING, lease.Bar.DAMAGED})
        assert slot.cause is bar


@pytest.mark.parametrize("bar", [lease.Bar.ESTOP, lease.Bar.STOPPING])
def test_final_bar_cannot_be_lifted(prefix: str, bar: lease.Bar) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        table.bar_all(bar)
        for index in range(SLOTS):
            table.bar(index, lease.Bar.IDLE)
            table.unbar(index)
            assert not table.lease(index).begin()
        assert not table.fresh_tokens()


def test_each_lease_has_a_new_token(prefix: str) -> None:
    clock = LeaseClock()
    with LeaseTable.open(prefix, clock=clock) as table:
        table.heartbeat()
        slot = table.lease(3)
        tokens = []
        assert keep(slot)
        tokens.append(slot.token)
        slot.release()
        assert keep(slot), "released, and begun again"
        tokens.append(slot.token)
        assert not keep(slot)
        clock.advance(lease.TIMEOUT)
        assert keep(slot), "lapsed, although no process noticed"
        tokens.append(slot.token)
        assert len(set(tokens)) == 3
        assert {slot for token in tokens for slot in lease.slots_of(1 << token)} == {3}
        table.heartbeat()
        assert table.fresh_tokens() == 1 << tokens[-1]


def test_tokens_contain_the_slot_after_any_number_of_leases(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        slot = table.lease(9)
        tokens = set()
        for _ in range(300):
            slot.begin()
            tokens.add(slot.token)
            (holder,) = table.holders()
            assert holder.token == slot.token
        assert len(tokens) == 16
        assert {slot for token in tokens for slot in lease.slots_of(1 << token)} == {9}


def test_lapse_of_an_old_lease_keeps_its_successor(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        slot = table.lease(8)
        slot.begin()
        (before,) = table.holders()
        slot.release()
        slot.begin()  # the next session of the slot
        assert not table.lapse(before)
        assert table.fresh_tokens()


@pytest.mark.parametrize("uptime", [0.0, 0.05, 10.0])
def test_stamp_of_zero_is_never_valid(prefix: str, uptime: float) -> None:
    with LeaseTable.open(prefix, clock=LeaseClock(uptime)) as table:
        assert not table.root_alive()
        table._root[0] = 1
        assert not table.fresh_tokens()
        assert table.holders() == []
        assert not table.lease(0).renew()
        # A released lease has a stamp of zero too, and no other reason to be invalid.
        table.lease(0).begin()
        table.lease(0).release()
        assert not table.fresh_tokens()
        assert table.holders() == []
        assert not table.held
        assert not table.lease(0).renew()


def test_stamps_use_the_clock_that_includes_suspends() -> None:
    assert boottime_ns() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) <= boottime_ns()


def test_missing_or_invalid_table_is_an_error(prefix: str) -> None:
    with pytest.raises(DeviceBufferError, match="no buffer"), LeaseTable.open(prefix, create=False):
        pass
    segment.create(f"{prefix}lease", 10, lambda _: None)
    with pytest.raises(DeviceBufferError, match="not a lease table"), LeaseTable.open(prefix):
        pass


def test_no_lease_is_valid_without_a_heartbeat_of_the_root(prefix: str) -> None:
    clock = LeaseClock()
    with LeaseTable.open(prefix, clock=clock) as table:
        table.lease(0).begin()
        assert not table.fresh_tokens()
        assert table.holders() == []
        table.heartbeat()
        assert table.fresh_tokens()
        clock.advance(lease.ROOT_TIMEOUT)
        table.lease(0).begin()
        assert not table.fresh_tokens()
        assert not table.root_alive()


def test_stamps_in_the_future_are_invalid(prefix: str) -> None:
    clock = LeaseClock()
    with LeaseTable.open(prefix, clock=clock) as table:
        table.heartbeat()
        clock.advance(1000)
        table.lease(0).begin()
        clock.advance(-1000)
        assert table.root_alive()
        assert not table.fresh_tokens()
        assert table.holders() == []


def test_existing_table_is_opened_without_allocating_memory(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LeaseTable.open(prefix):
        monkeypatch.setattr(segment, "create", None)
        with LeaseTable.open(prefix):
            pass


def test_root_is_alive_for_100_ms_after_its_heartbeat(prefix: str) -> None:
    clock = LeaseClock()
    with LeaseTable.open(prefix, clock=clock) as table:
        table.heartbeat()
        start = clock.now
        alive = {}
        for ms in (0, 99, 100, 1000):
            clock.now = start + ms * 10**6
            alive[ms] = table.root_alive()
        assert alive == {0: True, 99: True, 100: False, 1000: False}


def test_root_stamps_before_it_unbars(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        stamps: list[Bar] = []

        def stamp() -> None:
            stamps.append(table.bar_of(0))
            table.heartbeat()

        table.bar_all(Bar.IDLE)
        table.on_unbar = stamp
        assert not table.any_unbarred()
        assert not table.root_alive()
        table.unbar(0)
        assert stamps == [Bar.IDLE]
        assert table.any_unbarred()
        assert table.lease(0).begin()
        assert table.fresh_tokens()
        table.bar(0, Bar.ESTOP)
        table.unbar(0)
        assert stamps == [Bar.IDLE], "a final bar stays"
        assert not table.any_unbarred()


@pytest.mark.parametrize("bar", [Bar.DAMAGED, Bar.STOPPING, Bar.ESTOP])
def test_final_bar_set_during_unbar_wins(prefix: str, bar: Bar) -> None:
    with LeaseTable.open(prefix) as table:
        table.bar_all(Bar.IDLE)
        table.on_unbar = lambda: table.bar_all(bar)
        table.unbar(0)
        assert table.bar_of(0) is bar
        assert not table.lease(0).begin()
        assert not table.any_unbarred()


def test_lease_is_held_without_a_heartbeat_until_revoked(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        assert not table.held
        slot = table.lease(0)
        slot.begin()
        assert table.held
        table.revoke_all()
        assert not table.held
