"""The guard: open only under a fresh lease, and closed within milliseconds of a holder's death."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from support.leases import keep

from rt.buffer import LeaseTable, lease
from rt.buffer.lease import TIMEOUT, Bar, slots_of
from rt.smartdevice.guard import SafetyGuard

HOLDER = """
import sys, time
from rt.buffer.lease import LeaseTable
with LeaseTable.open(sys.argv[1], create=False) as table:
    lease = table.lease(2)
    while True:
        lease.renew() or lease.begin()
        time.sleep(0.02)
"""


class Lapses:
    """Counts, and lets a test wait."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.tokens: list[int] = []
        self.news = trio.Event()
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, tokens: int, _moved: int) -> None:
        self.tokens.append(tokens)
        self.meanwhile()
        self.times.append(trio.current_time())
        self.news.set()

    async def wait(self) -> float:
        with trio.fail_after(30):
            await self.news.wait()
        self.news = trio.Event()
        return self.times[-1]


async def keep_beating(table: LeaseTable) -> None:
    while True:
        table.heartbeat()
        await trio.sleep(0.02)


@asynccontextmanager
async def guarding(
    table: LeaseTable, *, rooted: bool = True, deadline: float = 60.0
) -> AsyncIterator[tuple[SafetyGuard, Lapses]]:
    """A guard that runs; a body that takes longer than ``deadline`` (s) fails, as one that waits for a guard that spins."""
    lapses = Lapses()
    guard = SafetyGuard(table, lapses)
    with trio.fail_after(deadline):
        async with trio.open_nursery() as nursery:
            table.heartbeat()
            if rooted:
                nursery.start_soon(keep_beating, table)
            nursery.start_soon(guard.run)
            await trio.testing.wait_all_tasks_blocked()
            yield guard, lapses
            nursery.cancel_scope.cancel()


@contextmanager
def holder(prefix: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, prefix]) as process:
        try:
            yield process
        finally:
            process.kill()


def set_timeout(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let leases count for so long in this process, which looks at them."""
    monkeypatch.setattr(lease, "TIMEOUT", seconds)
    monkeypatch.setattr(lease, "_TIMEOUT_NS", round(seconds * 1e9))


def set_root_timeout(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the root be silent for so long."""
    monkeypatch.setattr(lease, "_ROOT_TIMEOUT_NS", round(seconds * 1e9))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lease runs out, however long a busy machine lets its holder, or the root, wait."""
    set_timeout(monkeypatch, 600.0)
    set_root_timeout(monkeypatch, 600.0)


def is_open(guard: SafetyGuard) -> bool:
    return guard.is_open


async def until_open(guard: SafetyGuard) -> None:
    with trio.fail_after(30):
        while not guard.is_open:  # noqa: ASYNC110 - another process begins its lease without a bell
            await trio.sleep(0.002)


async def test_nothing_is_open_without_a_lease_and_nothing_lapses(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            guard.check()
            assert not guard.is_open
            assert lapses.times == []


async def test_a_lease_that_is_released_lapses_as_soon_as_the_bell_rings(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            for count in range(1, 4):
                keep(table.lease(0))
                assert is_open(guard)
                table.lease(0).release()
                assert not is_open(guard)
                guard.check()
                assert len(lapses.times) == count


async def test_a_lease_that_was_given_up_and_begun_again_between_two_looks_has_lapsed(
    prefix: str,
) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            lease = table.lease(0)
            keep(lease)
            guard.check()
            before = lease.token
            lease.release()
            keep(lease)
            with capture_logs() as events:
                guard.check()
            assert lapses.tokens == [1 << before]
            assert [event["reason"] for event in events] == ["it has ended and begun again"]
            assert guard.allowed == 1 << lease.token


@pytest.mark.parametrize("seat", [0, 9])
async def test_a_lease_that_begins_while_the_last_one_lapses_is_not_taken_away(
    prefix: str, slot: int, patient: None
) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            first, next_one = table.lease(0), table.lease(slot)
            keep(first)
            guard.check()
            ended = first.token
            first.release()
            lapses.meanwhile = next_one.begin
            with capture_logs() as events:
                guard.check()
            assert lapses.tokens == [1 << ended], "what the next one has written is not forgotten"
            assert guard.allowed == 1 << next_one.token
            assert not keep(next_one), "it goes on"
            assert len(events) == 1


async def test_a_silent_lease_lapses_at_its_time_out(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            start = trio.current_time()
            keep(table.lease(0))
            guard.check()
            with capture_logs() as events:
                assert await lapses.wait() - start >= TIMEOUT
            assert [event["reason"] for event in events] == ["it gave no sign of life for 0.1 s"]
            assert keep(table.lease(0)), "whoever comes back has to ring"


async def test_a_renewed_lease_stays(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    long = 10 * TIMEOUT
    set_timeout(monkeypatch, long)
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            for _ in range(4):
                keep(table.lease(0))
                guard.check()
                await trio.sleep(long / 3)
            assert guard.is_open
            assert lapses.times == []


async def test_death_of_the_holder_is_a_lapse_before_its_lease_has_run_out(
    prefix: str, patient: None
) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            with holder(prefix) as process:
                await until_open(guard)
                await trio.testing.wait_all_tasks_blocked(0.005)
                with capture_logs() as events:
                    os.kill(process.pid, signal.SIGKILL)
                    await lapses.wait()
            assert str(process.pid) in events[0]["reason"]
            assert not guard.is_open


async def test_one_dead_holder_stops_what_it_moved_and_not_what_another_holds(
    prefix: str, patient: None
) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses), trio.open_nursery() as nursery:

            async def renew() -> None:
                while True:
                    keep(table.lease(0))
                    guard.check()
                    await trio.sleep(0.02)

            nursery.start_soon(renew)
            with holder(prefix) as process, trio.fail_after(30):
                while len(table.holders()) < 2:  # noqa: ASYNC110 - another process begins its lease without a bell
                    await trio.sleep(0.002)
                await trio.sleep(0.05)
                process.kill()
                while len(table.holders()) > 1:  # noqa: ASYNC110 - the guard takes it away
                    await trio.sleep(0.001)
            assert slots_of(guard.allowed) == [0]
            assert [slots_of(tokens) for tokens in lapses.tokens] == [[2]]
            nursery.cancel_scope.cancel()


async def test_a_guard_that_is_shut_never_opens_again(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            keep(table.lease(0))
            assert is_open(guard)
            guard.close()
            assert len(lapses.times) == 1
            keep(table.lease(0))
            guard.check()
            assert not guard.is_open


async def test_nothing_moves_when_the_root_falls_silent(
    prefix: str, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_root_timeout(monkeypatch, 0.3)
    with LeaseTable.open(prefix) as table:
        async with guarding(table, rooted=False) as (guard, lapses), trio.open_nursery() as nursery:

            async def renew() -> None:
                while True:
                    keep(table.lease(0))
                    guard.check()
                    await trio.sleep(0.02)

            nursery.start_soon(renew)
            with capture_logs() as events:
                await lapses.wait()
            assert [event["reason"] for event in events] == [
                "the robot's main process does not answer"
            ]
            assert not is_open(guard)
            nursery.cancel_scope.cancel()


async def rounds(guard: SafetyGuard, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the guard's task looks while nothing happens; the looks of the caller do not count."""
    looks = 0
    original = guard.check

    def look() -> None:
        nonlocal looks
        looks += 1
        original()

    monkeypatch.setattr(guard, "check", look)
    for _ in range(50):
        await trio.lowlevel.checkpoint()
    monkeypatch.setattr(guard, "check", original)
    return looks


HOWS = ["released", "lapsed", "revoked", "barred", "shut"]


async def sleep_after(
    prefix: str, how: str, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    """See that a guard sleeps when a lease has ended in some way."""
    with LeaseTable.open(prefix) as table:
        async with guarding(table, deadline=deadline) as (guard, _):
            lease = table.lease(0)
            keep(lease)
            guard.check()
            await trio.testing.wait_all_tasks_blocked()
            match how:
                case "released":
                    lease.release()
                case "lapsed":
                    set_timeout(monkeypatch, 0.0)
                case "revoked":
                    table.revoke_all()
                case "barred":
                    table.bar_all(Bar.IDLE)
                case "shut":
                    guard.close()
                    keep(lease)
            guard.check()
            assert not guard.is_open
            await trio.lowlevel.checkpoint()
            assert await rounds(guard, monkeypatch) <= 2


@pytest.mark.parametrize("how", HOWS)
async def test_guard_sleeps_after_a_lease_has_ended(
    prefix: str, how: str, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sleep_after(prefix, how, monkeypatch, 60.0)


@pytest.mark.parametrize("spins", ["always", "after the lease"])
@pytest.mark.parametrize("how", HOWS)
async def test_guard_that_spins_is_found(
    prefix: str, how: str, spins: str, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def spin(guard: SafetyGuard) -> None:
        if spins == "after the lease":
            assert isinstance(guard._on_lapse, Lapses)
            await guard._on_lapse.news.wait()
        while True:
            guard.check()
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(SafetyGuard, "run", spin)
    with pytest.raises((trio.TooSlowError, ExceptionGroup)) as raised:
        await sleep_after(prefix, how, monkeypatch, 1.0 if spins == "always" else 60.0)
    assert isinstance(raised.value, trio.TooSlowError) == (spins == "always")
    assert isinstance(raised.value, trio.TooSlowError) or raised.group_contains(AssertionError)
