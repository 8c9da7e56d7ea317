"""The write guard: open only under a fresh lease, closed soon after the death of its holder."""

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
from support.leases import LeaseClock, keep

from rt.buffer import LeaseTable
from rt.buffer.lease import TIMEOUT, Bar, slots_of
from rt.smartdevice.write_guard import SafetyGuard

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
    """Records lapses, and lets a test wait for one."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.tokens: list[int] = []
        self.lapsed = trio.Event()
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, tokens: int, _moved: int) -> None:
        self.tokens.append(tokens)
        self.meanwhile()
        self.times.append(trio.current_time())
        self.lapsed.set()

    async def wait(self) -> float:
        with trio.fail_after(30):
            await self.lapsed.wait()
        self.lapsed = trio.Event()
        return self.times[-1]


async def keep_beating(table: LeaseTable) -> None:
    while True:
        table.heartbeat()
        await trio.sleep(0.02)


@asynccontextmanager
async def guarding(
    table: LeaseTable, *, rooted: bool = True, deadline: float = 60.0
) -> AsyncIterator[tuple[SafetyGuard, Lapses]]:
    """Run a guard.

    A body that takes longer than ``deadline`` (s) fails; one that waits for a guard that spins
    does.
    """
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


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]) as process:
        try:
            yield process
        finally:
            process.kill()


LONG = 600.0
"""A timeout (s) that no delay of a busy machine exceeds."""


@pytest.fixture
def patient(prefix: str) -> Iterator[LeaseTable]:
    """A table in which no lease expires."""
    with LeaseTable.open(prefix, timeout=LONG, root_timeout=LONG) as table:
        yield table


def is_open(guard: SafetyGuard) -> bool:
    return guard.is_open


async def until_open(guard: SafetyGuard) -> None:
    with trio.fail_after(30):
        while not guard.is_open:  # noqa: ASYNC110 - no event is set
            await trio.sleep(0.002)


async def test_guard_is_closed_without_a_lease(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            guard.check()
            assert not guard.is_open
            assert lapses.times == []


async def test_released_lease_lapses_at_next_check(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            for count in range(1, 4):
                keep(table.lease(0))
                assert is_open(guard)
                table.lease(0).release()
                assert not is_open(guard)
                assert guard.armed == 1 << table.token(0), "its devices are not disabled yet"
                guard.check()
                assert guard.armed == 0
                assert len(lapses.times) == count


async def test_lease_replaced_between_two_checks_has_lapsed(prefix: str) -> None:
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
            assert [event["reason"] for event in events] == [
                "the lease ended and another one of the same slot began"
            ]
            assert guard.allowed == 1 << lease.token


@pytest.mark.parametrize("slot", [0, 9])
async def test_lease_that_begins_during_a_lapse_stays(slot: int, patient: LeaseTable) -> None:
    async with guarding(patient) as (guard, lapses):
        first, next_one = patient.lease(0), patient.lease(slot)
        keep(first)
        guard.check()
        ended = first.token
        first.release()
        lapses.meanwhile = next_one.begin
        with capture_logs() as events:
            guard.check()
        assert lapses.tokens == [1 << ended], "writes of the next lease are not discarded"
        assert guard.allowed == 1 << next_one.token
        assert not keep(next_one), "it continues"
        assert len(events) == 1


async def test_unrenewed_lease_lapses_at_its_timeout(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            start = trio.current_time()
            keep(table.lease(0))
            guard.check()
            with capture_logs() as events:
                assert await lapses.wait() - start >= TIMEOUT
            assert [event["reason"] for event in events] == ["the lease was not renewed for 0.1 s"]
            assert keep(table.lease(0)), "a holder that comes back has to signal"


async def test_renewed_lease_stays(prefix: str) -> None:
    long = 10 * TIMEOUT
    with LeaseTable.open(prefix, timeout=long) as table:
        async with guarding(table) as (guard, lapses):
            for _ in range(4):
                keep(table.lease(0))
                guard.check()
                await trio.sleep(long / 3)
            assert guard.is_open
            assert lapses.times == []


async def test_death_of_holder_ends_lease_before_its_timeout(
    prefix: str, patient: LeaseTable
) -> None:
    async with guarding(patient) as (guard, lapses):
        with holder(prefix) as process:
            await until_open(guard)
            await trio.testing.wait_all_tasks_blocked(0.005)
            with capture_logs() as events:
                os.kill(process.pid, signal.SIGKILL)
                await lapses.wait()
        assert str(process.pid) in events[0]["reason"]
        assert not guard.is_open


async def test_dead_holder_does_not_end_lease_of_another(prefix: str, patient: LeaseTable) -> None:
    async with guarding(patient) as (guard, lapses), trio.open_nursery() as nursery:

        async def renew() -> None:
            while True:
                keep(patient.lease(0))
                guard.check()
                await trio.sleep(0.02)

        nursery.start_soon(renew)
        with holder(prefix) as process, trio.fail_after(30):
            while len(patient.holders()) < 2:  # noqa: ASYNC110 - no event is set
                await trio.sleep(0.002)
            await trio.sleep(0.05)
            process.kill()
            while len(patient.holders()) > 1:  # noqa: ASYNC110 - the guard takes it away
                await trio.sleep(0.001)
        assert slots_of(guard.allowed) == [0]
        assert [slots_of(tokens) for tokens in lapses.tokens] == [[2]]
        nursery.cancel_scope.cancel()


DEAD_PID = 1 << 30  # above the limit of the kernel
IMPOSSIBLE_PID = (1 << 64) - 1


async def test_lease_of_a_dead_process_ends(patient: LeaseTable) -> None:
    async with guarding(patient) as (guard, lapses):
        patient.lease(0).begin()
        patient.pids[0] = DEAD_PID  # it ended before the guard could watch it
        guard.check()
        await lapses.wait()
        assert not guard.is_open


async def test_overwritten_process_id_does_not_end_the_guard(prefix: str) -> None:
    with LeaseTable.open(prefix, timeout=1.0, root_timeout=LONG) as table:
        async with guarding(table) as (guard, lapses):
            table.lease(0).begin()
            table.pids[0] = IMPOSSIBLE_PID
            with capture_logs() as events:
                guard.check()
                await lapses.wait()
            assert [event["reason"] for event in events] == ["the lease was not renewed for 0.1 s"]
            assert not guard.is_open


async def test_death_after_release_is_no_second_lapse(patient: LeaseTable) -> None:
    lapses = Lapses()
    guard = SafetyGuard(patient, lapses)
    patient.heartbeat()
    lease = patient.lease(0)
    lease.begin()
    assert guard.is_open
    (holder,) = patient.holders()
    lease.release()
    guard.check()
    await guard._watch_process(DEAD_PID, [holder])
    assert len(lapses.times) == 1


async def test_next_process_with_the_same_token_is_watched(patient: LeaseTable) -> None:
    with sleeper() as process:
        async with guarding(patient) as (guard, lapses):
            patient.lease(0).begin()
            before = guard.allowed
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(16):  # after which tokens repeat
                patient.lease(0).begin()
            patient.pids[0] = process.pid
            assert guard.allowed == before
            guard.check()
            await trio.testing.wait_all_tasks_blocked()
            assert lapses.times == []
            process.kill()
            await lapses.wait()
            assert not guard.is_open


async def test_ended_session_leaves_team_code_its_lease(patient: LeaseTable) -> None:
    async with guarding(patient) as (guard, lapses):
        team, session = patient.lease(0), patient.lease(9)
        team.begin()
        session.begin()
        assert slots_of(guard.allowed) == [0, 9]
        with capture_logs() as events:
            guard.end_sessions("the brake disabled every device")
            guard.end_sessions("the brake disabled every device")
        assert lapses.tokens == [1 << session.token]
        assert not session.renew()
        assert team.renew()
        assert guard.allowed == 1 << team.token
    assert [(event["event"], event["reason"]) for event in events] == [
        ("devices disabled", "the brake disabled every device")
    ]


async def test_closing_without_a_lease_disables_nothing(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        lapses = Lapses()
        guard = SafetyGuard(table, lapses)
        with capture_logs() as events:
            guard.close()
            guard.note_dropped("line", 1, 1 << table.token(0))
        assert (lapses.times, events) == ([], [])


async def test_closed_guard_never_opens_again(prefix: str) -> None:
    with LeaseTable.open(prefix) as table:
        async with guarding(table) as (guard, lapses):
            keep(table.lease(0))
            assert is_open(guard)
            guard.close()
            assert len(lapses.times) == 1
            keep(table.lease(0))
            guard.check()
            assert not guard.is_open


async def test_guard_closes_when_root_falls_silent(prefix: str) -> None:
    with LeaseTable.open(prefix, timeout=LONG, root_timeout=0.3) as table:
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
                "the robot's main process does not respond"
            ]
            assert not is_open(guard)
            nursery.cancel_scope.cancel()


async def rounds(guard: SafetyGuard, monkeypatch: pytest.MonkeyPatch) -> int:
    """Count the checks of the guard's task while nothing happens, without those of the caller."""
    checks = 0
    original = guard.check

    def check() -> None:
        nonlocal checks
        checks += 1
        original()

    monkeypatch.setattr(guard, "check", check)
    for _ in range(50):
        await trio.lowlevel.checkpoint()
    monkeypatch.setattr(guard, "check", original)
    return checks


ENDINGS = ["released", "lapsed", "revoked", "barred", "closed"]


async def sleep_after(
    prefix: str, how: str, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    """Check that a guard sleeps after a lease has ended in some way."""
    clock = LeaseClock()
    with LeaseTable.open(prefix, timeout=LONG, root_timeout=2 * LONG, clock=clock) as table:
        async with guarding(table, deadline=deadline) as (guard, _):
            lease = table.lease(0)
            keep(lease)
            guard.check()
            await trio.testing.wait_all_tasks_blocked()
            match how:
                case "released":
                    lease.release()
                case "lapsed":
                    clock.advance(LONG)
                case "revoked":
                    table.revoke_all()
                case "barred":
                    table.bar_all(Bar.IDLE)
                case "closed":
                    guard.close()
                    keep(lease)
            guard.check()
            assert not guard.is_open
            await trio.lowlevel.checkpoint()
            assert await rounds(guard, monkeypatch) <= 2


@pytest.mark.parametrize("how", ENDINGS)
async def test_guard_sleeps_after_a_lease_has_ended(
    prefix: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sleep_after(prefix, how, monkeypatch, 60.0)


@pytest.mark.parametrize("spins", ["always", "after the lease"])
@pytest.mark.parametrize("how", ENDINGS)
async def test_spinning_guard_fails_the_test(
    prefix: str, how: str, spins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def spin(guard: SafetyGuard) -> None:
        if spins == "after the lease":
            assert isinstance(guard._on_lapse, Lapses)
            await guard._on_lapse.lapsed.wait()
        while True:
            guard.check()
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(SafetyGuard, "run", spin)
    with pytest.raises((trio.TooSlowError, ExceptionGroup)) as raised:
        await sleep_after(prefix, how, monkeypatch, 1.0 if spins == "always" else 60.0)
    assert isinstance(raised.value, trio.TooSlowError) == (spins == "always")
    assert isinstance(raised.value, trio.TooSlowError) or raised.group_contains(AssertionError)
