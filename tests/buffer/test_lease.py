import time

import pytest
from support.leases import keep

from rt.buffer import LeaseTable, lease, segment
from rt.buffer.clock import boottime_ns
from rt.buffer.lease import Bar
from rt.buffer.wakeup import EXECUTOR_SLOT, SLOTS
from rt.errors import DeviceBufferError


def test_nobody_holds_a_lease_at_first(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        assert not table.fresh_tokens()
        assert table.holders() == []


def test_a_lease_is_fresh_until_it_is_released(prefix: str) -> None:
    with LeaseTable.open(prefix) as ours, LeaseTable.open(prefix, create=False) as theirs:
        ours.heartbeat()
        slot = ours.lease(EXECUTOR_SLOT)
        assert not slot.renew(), "it has not begun"
        assert slot.begin()
        assert slot.renew()
        assert theirs.fresh_tokens()
        assert 0 < theirs.remaining() <= lease.TIMEOUT
        assert slot.release()
        assert not theirs.fresh_tokens()
        assert not slot.release()
        assert not slot.renew()


def test_silence_is_a_lapse(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        table.lease(3).begin()
        later = boottime_ns() + round(lease.TIMEOUT * 1e9) + 1
        monkeypatch.setattr(lease, "boottime_ns", lambda: later)
        assert not table.fresh_tokens()
        assert table.holders() == []
        assert not table.lease(3).renew(), "a holder that was silent has to begin again"


def test_ended_lease_has_to_begin_again(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        slot = table.lease(1)
        slot.begin()
        (holder,) = table.holders()
        assert table.lapse(holder)
        assert not table.lapse(holder), "it has ended already"
        assert not table.fresh_tokens()
        assert not slot.renew()
        assert slot.begin()
        assert table.fresh_tokens()


def test_root_revokes_every_lease(prefix: str) -> None:
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


def test_lease_that_began_before_a_revocation_is_not_brought_back_by_a_late_stamp(
    prefix: str,
) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        table.lease(4).begin()
        table.revoke_all()
        table.stamps[4] = boottime_ns()  # its holder had looked before, and stamps after
        assert not table.fresh_tokens()


@pytest.mark.parametrize("bar", [bar for bar in lease.Bar if bar])
def test_no_lease_counts_in_a_barred_slot(prefix: str, bar: lease.Bar) -> None:
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
        assert not slot.renew(), "what the bar ended does not continue"
        assert slot.begin() == (bar not in {lease.Bar.ESTOP, lease.Bar.STOPPING, lease.Bar.DAMAGED})
        assert slot.cause is bar


@pytest.mark.parametrize("bar", [lease.Bar.ESTOP, lease.Bar.STOPPING])
def test_final_bar_stays(prefix: str, bar: lease.Bar) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        table.bar_all(bar)
        for index in range(SLOTS):
            table.bar(index, lease.Bar.IDLE)
            table.unbar(index)
            assert not table.lease(index).begin()
        assert not table.fresh_tokens()


def test_a_lease_that_has_ended_does_not_go_on(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        slot = table.lease(3)
        tokens = []
        assert keep(slot)
        tokens.append(slot.token)
        slot.release()
        assert keep(slot), "given up, and begun again"
        tokens.append(slot.token)
        assert not keep(slot)
        later = boottime_ns() + round(lease.TIMEOUT * 1e9)
        monkeypatch.setattr(lease, "boottime_ns", lambda: later)
        assert keep(slot), "nobody noticed that it had lapsed, and it had all the same"
        tokens.append(slot.token)
        assert len(set(tokens)) == 3
        assert {slot for token in tokens for slot in lease.slots_of(1 << token)} == {3}
        table.heartbeat()
        assert table.fresh_tokens() == 1 << tokens[-1]


def test_marks_name_their_slot_after_any_number_of_leases(prefix: str) -> None:
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


def test_only_the_lease_that_was_meant_is_taken_away(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        slot = table.lease(8)
        slot.begin()
        (before,) = table.holders()
        slot.release()
        slot.begin()  # the seat's next visitor
        assert not table.lapse(before)
        assert table.fresh_tokens()


@pytest.mark.parametrize("uptime", [0.0, 5.0, 1000.0])
def test_stamp_of_zero_is_never_a_lease(
    prefix: str, monkeypatch: pytest.MonkeyPatch, uptime: float
) -> None:
    monkeypatch.setattr(lease, "_TIMEOUT_NS", 600 * 10**9)
    monkeypatch.setattr(lease, "_ROOT_TIMEOUT_NS", 600 * 10**9)
    monkeypatch.setattr(lease, "boottime_ns", lambda: round(uptime * 1e9))
    with LeaseTable.open(prefix) as table:
        assert not table.root_alive()
        table._root[0] = 1
        assert not table.fresh_tokens()
        assert table.holders() == []
        assert not table.lease(0).renew()
        # A lease that began and was released has a stamp of zero too, and no other reason not to
        # count.
        table.lease(0).begin()
        table.lease(0).release()
        assert not table.fresh_tokens()
        assert table.holders() == []
        assert not table.held
        assert not table.lease(0).renew()


def test_stamps_are_of_the_clock_that_goes_on_while_the_machine_is_suspended() -> None:
    assert boottime_ns() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) <= boottime_ns()


def test_what_is_no_lease_table_is_refused(prefix: str) -> None:
    with pytest.raises(DeviceBufferError, match="no buffer"), LeaseTable.open(prefix, create=False):
        pass
    segment.create(f"{prefix}lease", 10, lambda _: None)
    with pytest.raises(DeviceBufferError, match="not a lease table"), LeaseTable.open(prefix):
        pass


def test_no_lease_counts_without_a_sign_of_life_of_the_root(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LeaseTable.open(prefix) as table:
        table.lease(0).begin()
        assert not table.fresh_tokens()
        assert table.holders() == []
        table.heartbeat()
        assert table.fresh_tokens()
        later = boottime_ns() + round(lease.ROOT_TIMEOUT * 1e9) + 1
        monkeypatch.setattr(lease, "boottime_ns", lambda: later)
        table.lease(0).begin()
        assert not table.fresh_tokens()
        assert not table.root_alive()


def test_stamps_of_the_future_count_as_none(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LeaseTable.open(prefix) as table:
        table.heartbeat()
        monkeypatch.setattr(lease, "boottime_ns", lambda: boottime_ns() + 10**12)
        table.lease(0).begin()
        monkeypatch.undo()
        assert not table.fresh_tokens()
        assert table.holders() == []


def test_a_table_that_is_there_is_opened_without_asking_for_memory(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LeaseTable.open(prefix):
        monkeypatch.setattr(segment, "create", None)
        with LeaseTable.open(prefix):
            pass


def test_lease_counts_only_for_a_while_after_the_roots_last_stamp(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ms = 10**6
    with LeaseTable.open(prefix) as table:
        start = boottime_ns()
        now = start
        monkeypatch.setattr(lease, "boottime_ns", lambda: now)
        table.heartbeat()

        def alive(at_ms: int) -> bool:
            nonlocal now
            now = start + at_ms * ms
            return table.root_alive()

        assert [alive(at) for at in (0, 99, 100, 1000)] == [True, True, False, False]


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
def test_slot_that_is_barred_for_good_while_it_is_unbarred_stays_barred(
    prefix: str, bar: Bar
) -> None:
    with LeaseTable.open(prefix) as table:
        table.bar_all(Bar.IDLE)
        table.on_unbar = lambda: table.bar_all(bar)
        table.unbar(0)
        assert table.bar_of(0) is bar
        assert not table.lease(0).begin()
        assert not table.any_unbarred()


def test_lease_is_held_whatever_the_root_does(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        assert not table.held
        slot = table.lease(0)
        slot.begin()
        assert table.held
        table.revoke_all()
        assert not table.held
