"""Tests of the root's heartbeat: its rate, and the revocation of leases after a stall."""

import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from rt.buffer import LeaseTable
from rt.buffer.lease import Bar
from rt.buffer.write_event import WriteEvent
from rt.root.heartbeat import run_heartbeat

TIMEOUT = 30.0
IDLE_INTERVAL = 0.5
OPEN_INTERVAL = 0.02
LONGEST_DELAY = 0.2
LONG = 600.0
"""A timeout (s) that no delay of a busy machine exceeds."""


class Stamps:
    """Counts the heartbeats in a lease table."""

    def __init__(self, table: LeaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = table.heartbeat

        def count() -> None:
            self.count += 1
            original()

        monkeypatch.setattr(table, "heartbeat", count)


@asynccontextmanager
async def running_heartbeat(
    table: LeaseTable,
    waited: Callable[[], float] = lambda: 0.0,
    check: Callable[[], object] = lambda: None,
    on_stall: Callable[[], object] = lambda: None,
    idle_interval: float = IDLE_INTERVAL,
) -> AsyncIterator[WriteEvent]:
    write_event = WriteEvent()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                functools.partial(
                    run_heartbeat,
                    table,
                    write_event,
                    check,
                    waited,
                    on_stall,
                    idle_interval=idle_interval,
                    open_interval=OPEN_INTERVAL,
                    longest_delay=LONGEST_DELAY,
                )
            )
            await trio.testing.wait_all_tasks_blocked()
            yield write_event
            nursery.cancel_scope.cancel()
    finally:
        write_event.close()


async def test_heartbeat_is_fast_while_a_slot_is_not_barred(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LeaseTable.open(prefix) as table:
        table.bar_all(Bar.IDLE)
        stamps = Stamps(table, monkeypatch)
        async with running_heartbeat(table, idle_interval=600.0):
            before = stamps.count
            table.unbar(0)
            assert stamps.count == before + 1, "at once"
            with trio.fail_after(TIMEOUT):
                while stamps.count < before + 4:  # noqa: ASYNC110
                    await trio.sleep(0.005)
            table.bar(0, Bar.IDLE)
            await trio.sleep(OPEN_INTERVAL * 2)
            after = stamps.count
            await trio.sleep(OPEN_INTERVAL * 4)
            assert stamps.count == after


@pytest.mark.parametrize("slot", ["barred", "open", "held"])
async def test_stalled_root_revokes_every_lease_before_it_stamps(prefix: str, slot: str) -> None:
    with LeaseTable.open(prefix, timeout=LONG) as table:
        if slot == "barred":
            table.bar_all(Bar.IDLE)
        lease = table.lease(0)
        stalls: list[bool] = []
        async with running_heartbeat(
            table, on_stall=lambda: stalls.append(lease.revoked)
        ) as write_event:
            if slot == "held":
                assert lease.begin()
                await trio.testing.wait_all_tasks_blocked(0.005)
            write_event.clear()
            with capture_logs() as events:
                time.sleep(IDLE_INTERVAL + 2 * LONGEST_DELAY)  # noqa: ASYNC251 - a stall
                await trio.testing.wait_all_tasks_blocked(0.005)
            if slot != "barred":
                assert lease.revoked
                assert table.cause_of(0) is Bar.STALLED
            is_open = slot != "barred"
            assert [event["event"] for event in events] == [
                "root was stalled; every lease revoked"
            ] * is_open
            assert write_event.clear() == is_open
            assert stalls == [True] * is_open


async def test_stalled_root_revokes_every_lease_before_it_unbars(prefix: str) -> None:
    with LeaseTable.open(prefix, timeout=LONG) as table:
        table.bar_all(Bar.IDLE)
        async with running_heartbeat(table) as write_event:
            table.unbar(0)
            lease = table.lease(0)
            assert lease.begin()
            await trio.testing.wait_all_tasks_blocked(0.005)
            await trio.sleep(2 * OPEN_INTERVAL)
            write_event.clear()
            time.sleep(OPEN_INTERVAL + 2 * LONGEST_DELAY)  # noqa: ASYNC251 - a stall
            table.unbar(1)  # by a task that runs before the heartbeat
            assert lease.revoked
            assert write_event.clear()


@pytest.mark.parametrize(("share", "is_revoked"), [(0.8, False), (0.3, True)])
async def test_root_that_waited_for_a_processor_revokes_no_lease(
    prefix: str, share: float, is_revoked: bool
) -> None:
    with LeaseTable.open(prefix, timeout=LONG) as table:
        lease = table.lease(0)
        start = time.monotonic()
        async with running_heartbeat(table, lambda: share * (time.monotonic() - start)):
            assert lease.begin()
            await trio.testing.wait_all_tasks_blocked(0.005)
            time.sleep(IDLE_INTERVAL + 2 * LONGEST_DELAY)  # noqa: ASYNC251 - a stall
            await trio.testing.wait_all_tasks_blocked(0.005)
            assert lease.revoked is is_revoked


async def test_memory_is_verified_after_a_slot_is_unbarred(prefix: str) -> None:
    seen: list[Bar] = []
    with LeaseTable.open(prefix) as table:
        table.bar_all(Bar.IDLE)
        async with running_heartbeat(table, check=lambda: seen.append(table.bar_of(0))):
            seen.clear()
            table.unbar(0)
            assert seen == []
            await trio.testing.wait_all_tasks_blocked()
            assert seen == [Bar.NONE]
