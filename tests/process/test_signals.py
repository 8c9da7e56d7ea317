"""Tests of stop signals: the first one, duplicates and repetitions."""

import os
import signal

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from rt.process import signals


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (None, ["first"]),
        (0.0, ["first"]),
        (0.99, ["first"]),
        (1.01, ["first", "again"]),
        (55.0, ["first", "again"]),
    ],
)
async def test_meaning_depends_on_the_first_signal(
    delay: float | None, expected: list[str], autojump_clock: MockClock
) -> None:
    found: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(
            signals.watch, lambda _: found.append("first"), lambda _: found.append("again")
        )
        for pause in (0.0,) if delay is None else (0.0, delay):
            await trio.sleep(pause)
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert found == expected


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_duplicate_is_ignored_and_a_later_signal_is_a_repetition(
    signum: signal.Signals, autojump_clock: MockClock
) -> None:
    reasons: list[str] = []
    before = signal.getsignal(signum)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            signals.watch, lambda reason: reasons.append(f"first: {reason}"), reasons.append
        )
        for pause in (0.0, 0.5, 1.0):
            await trio.sleep(pause)
            os.kill(os.getpid(), signum)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert reasons == [f"first: received {signum.name}", f"received {signum.name} again"]
    assert signal.getsignal(signum) is before


async def test_sighup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(signals.watch, pytest.fail, pytest.fail)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            nursery.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_early_signal_counts_as_the_first_one(autojump_clock: MockClock) -> None:
    reasons: list[str] = []
    async with trio.open_nursery() as nursery:
        early = [signal.SIGHUP, signal.SIGTERM]
        await nursery.start(
            lambda task_status: signals.watch(
                reasons.append, reasons.append, early=early, task_status=task_status
            )
        )
        assert reasons == ["received SIGHUP"]
        for pause in (0.5, 1.0):
            await trio.sleep(pause)
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert reasons == ["received SIGHUP", "received SIGTERM again"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_early_signals_are_captured_and_late_ones_are_ignored(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in signals.stop_signals()}
    try:
        with signals.capture_early_signals(*before) as early:
            os.kill(os.getpid(), number)
            assert early == [number]
        os.kill(os.getpid(), number)
        assert early == [number]
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_wait_returns_the_first_signal(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    names: list[str] = []

    async def wait() -> None:
        names.append(await signals.wait(signal.SIGINT, signal.SIGTERM, early=()))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), number)
    assert names == [number.name]
    assert signal.getsignal(number) is before


async def test_wait_returns_an_early_signal_at_once() -> None:
    with trio.fail_after(30):
        assert await signals.wait(signal.SIGTERM, early=[signal.SIGTERM]) == "SIGTERM"
