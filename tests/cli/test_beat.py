"""The root's sign of life: seldom while it is idle, often while a lease is held, and none after a standstill before leases end."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from rt.buffer import Doorbell, LeaseTable
from rt.buffer.lease import Bar
from rt.cli import beat
from rt.cli.beat import IDLE_INTERVAL, LONGEST_DELAY

PATIENCE = 30.0


class Stamps:
    """Counts the stamps of a table."""

    def __init__(self, table: LeaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = table.beat

        def count() -> None:
            self.count += 1
            original()

        monkeypatch.setattr(table, "beat", count)


@asynccontextmanager
async def beating(
    table: LeaseTable,
    waited: Callable[[], float] = lambda: 0.0,
    check: Callable[[], object] = lambda: None,
    on_stall: Callable[[], object] = lambda: None,
) -> AsyncIterator[Doorbell]:
    doorbell = Doorbell()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat.beat, table, doorbell, check, lambda: waited, on_stall)
            await trio.testing.wait_all_tasks_blocked()
            yield doorbell
            nursery.cancel_scope.cancel()
    finally:
        doorbell.close()


async def test_root_stamps_often_while_a_slot_is_not_barred(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beat, "IDLE_INTERVAL", 600.0)
    with LeaseTable.open(prefix) as table:
        table.bar_all(Bar.IDLE)
        stamps = Stamps(table, monkeypatch)
        async with beating(table):
            before = stamps.count
            table.unbar(0)
            assert stamps.count == before + 1, "at once"
            with trio.fail_after(PATIENCE):
                while stamps.count < before + 4:  # noqa: ASYNC110 - stamps are counted
                    await trio.sleep(0.005)
            table.bar(0, Bar.IDLE)
            await trio.sleep(beat.OPEN_INTERVAL * 2)
            after = stamps.count
            await trio.sleep(beat.OPEN_INTERVAL * 4)
            assert stamps.count == after


@pytest.mark.parametrize("slot", ["barred", "open", "held"])
async def test_root_that_stood_still_ends_every_lease_before_it_stamps(
    prefix: str, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rt.buffer.lease._TIMEOUT_NS", 600 * 10**9)  # a busy machine is slow
    with LeaseTable.open(prefix) as table:
        if slot == "barred":
            table.bar_all(Bar.IDLE)
        lease = table.slot(0)
        stalls: list[bool] = []
        async with beating(table, on_stall=lambda: stalls.append(lease.revoked)) as doorbell:
            if slot == "held":
                assert lease.begin()
                await trio.testing.wait_all_tasks_blocked(0.005)
            doorbell.clear()
            with capture_logs() as events:
                time.sleep(IDLE_INTERVAL + 2 * LONGEST_DELAY)  # noqa: ASYNC251 - the event loop stands still
                await trio.testing.wait_all_tasks_blocked(0.005)
            if slot != "barred":
                assert lease.revoked
                assert table.cause_of(0) is Bar.STALLED
            assert [event["event"] for event in events] == ["the root stood still: every lease is revoked"] * (
                slot != "barred"
            )
            assert doorbell.clear() == (slot != "barred")
            assert stalls == [True] * (slot != "barred")


async def test_root_that_stood_still_ends_every_lease_before_it_unbars(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rt.buffer.lease._TIMEOUT_NS", 600 * 10**9)
    with LeaseTable.open(prefix) as table:
        table.bar_all(Bar.IDLE)
        async with beating(table) as doorbell:
            table.unbar(0)
            lease = table.slot(0)
            assert lease.begin()
            await trio.testing.wait_all_tasks_blocked(0.005)
            await trio.sleep(2 * beat.OPEN_INTERVAL)
            doorbell.clear()
            time.sleep(beat.OPEN_INTERVAL + 2 * LONGEST_DELAY)  # noqa: ASYNC251 - the event loop stands still
            table.unbar(1)  # by a task that runs before the one that stamps
            assert lease.revoked
            assert doorbell.clear()


@pytest.mark.parametrize(("share", "is_revoked"), [(0.8, False), (0.3, True)])
async def test_root_that_waited_for_a_processor_ends_no_lease(
    prefix: str, share: float, is_revoked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rt.buffer.lease._TIMEOUT_NS", 600 * 10**9)
    with LeaseTable.open(prefix) as table:
        lease = table.slot(0)
        start = time.monotonic()
        async with beating(table, lambda: share * (time.monotonic() - start)):
            assert lease.begin()
            await trio.testing.wait_all_tasks_blocked(0.005)
            time.sleep(IDLE_INTERVAL + 2 * LONGEST_DELAY)  # noqa: ASYNC251 - the event loop stands still
            await trio.testing.wait_all_tasks_blocked(0.005)
            assert lease.revoked is is_revoked


async def test_memory_is_verified_soon_after_a_slot_is_unbarred_and_not_meanwhile(prefix: str) -> None:
    seen: list[Bar] = []
    with LeaseTable.open(prefix) as table:
        table.bar_all(Bar.IDLE)
        async with beating(table, check=lambda: seen.append(table.bar_of(0))):
            seen.clear()
            table.unbar(0)
            assert seen == []
            await trio.testing.wait_all_tasks_blocked()
            assert seen == [Bar.NONE]
