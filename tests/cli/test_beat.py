"""The root's sign of life: seldom while it is idle, often while a lease is held, and none after a standstill before leases end."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from rt.buffer import Bells, Doorbell, LeaseTable
from rt.buffer.bells import ROOT_SEAT
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
async def beating(table: LeaseTable) -> AsyncIterator[tuple[Bells, Doorbell]]:
    bells, doorbell = Bells(seat=ROOT_SEAT), Doorbell()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat.beat, table, bells, doorbell)
            await trio.testing.wait_all_tasks_blocked()
            yield bells, doorbell
            nursery.cancel_scope.cancel()
    finally:
        bells.close()
        doorbell.close()


async def test_ring_makes_an_idle_root_stamp_at_once_and_often(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beat, "IDLE_INTERVAL", 600.0)
    with LeaseTable.open(prefix) as table:
        stamps = Stamps(table, monkeypatch)
        async with beating(table) as (bells, _):
            before = stamps.count
            bells.ring(1 << ROOT_SEAT)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert stamps.count == before + 1, "the device process rings also when the last lease has ended"
            with trio.fail_after(PATIENCE):
                while stamps.count < before + 3:
                    table.slot(0).keep()
                    bells.ring(1 << ROOT_SEAT)
                    await trio.sleep(0.01)


@pytest.mark.parametrize("is_held", [False, True])
async def test_root_that_stood_still_ends_every_lease_before_it_stamps(
    prefix: str, is_held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rt.buffer.lease._TIMEOUT_NS", 600 * 10**9)  # a busy machine is slow
    with LeaseTable.open(prefix) as table:
        lease = table.slot(0)
        async with beating(table) as (bells, doorbell):
            if is_held:
                lease.keep()
                bells.ring(1 << ROOT_SEAT)
                await trio.testing.wait_all_tasks_blocked(0.005)
            doorbell.clear()
            with capture_logs() as events:
                time.sleep(IDLE_INTERVAL + 2 * LONGEST_DELAY)  # noqa: ASYNC251 - the event loop stands still
                await trio.testing.wait_all_tasks_blocked(0.005)
            if is_held:
                assert lease.revoked
            assert [event["event"] for event in events] == ["the root stood still: every lease is revoked"] * is_held
            assert doorbell.clear() == is_held
