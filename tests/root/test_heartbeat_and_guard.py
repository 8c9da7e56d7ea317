"""Tests of the root's heartbeat and the write guard together: a healthy root never times out."""

import itertools

import pytest
import trio

from rt.buffer import LeaseTable
from rt.buffer.lease import Bar
from rt.buffer.write_event import WriteEvent
from rt.root.heartbeat import run_heartbeat
from rt.smartdevice.write_guard import SafetyGuard


@pytest.mark.parametrize("gap", [0.05, 0.15, 0.25, 0.35])
async def test_lease_after_a_short_one_is_valid_at_once(
    prefix: str, autojump_clock: trio.testing.MockClock, gap: float
) -> None:
    calls = itertools.count()

    def now() -> int:
        return round((1000 + trio.current_time()) * 1e9) + next(calls)

    wakeup = WriteEvent()
    with (
        LeaseTable.open(prefix, clock=now) as of_root,
        LeaseTable.open(prefix, clock=now) as of_devices,
        LeaseTable.open(prefix, clock=now) as of_executor,
    ):
        guard = SafetyGuard(of_devices, lambda _ended, _moved: None)
        of_root.bar_all(Bar.IDLE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_heartbeat, of_root, wakeup)
            nursery.start_soon(guard.run)
            await trio.sleep(0.5 - trio.current_time() % 0.5 + 0.02)
            of_root.unbar(0)
            lease = of_executor.lease(0)
            assert lease.begin()
            assert guard.is_open
            lease.release()
            guard.check()
            await trio.sleep(gap)
            assert lease.begin()
            assert guard.allowed
            nursery.cancel_scope.cancel()
    wakeup.close()
