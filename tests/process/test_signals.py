"""The root's signals: once is in order, later again is now, and an echo is nothing."""

import os
import signal

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from rt.process import signals
from rt.process.signals import Meaning, classify


@pytest.mark.parametrize(
    ("first", "now", "verdict"),
    [
        (None, 5.0, Meaning.FIRST),
        (5.0, 5.0, Meaning.ECHO),
        (5.0, 5.99, Meaning.ECHO),
        (5.0, 6.01, Meaning.AGAIN),
        (5.0, 60.0, Meaning.AGAIN),
    ],
)
def test_a_signal_means_what_came_before_it_says(
    first: float | None, now: float, verdict: Meaning
) -> None:
    assert classify(first, now) is verdict


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_doubled_signal_is_one_and_a_later_one_is_now(
    signum: signal.Signals, autojump_clock: MockClock
) -> None:
    heard: list[str] = []
    before = signal.getsignal(signum)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            signals.watch, lambda reason: heard.append(f"orderly: {reason}"), heard.append
        )
        for pause in (0.0, 0.5, 1.0):
            await trio.sleep(pause)
            os.kill(os.getpid(), signum)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert heard == [f"orderly: received {signum.name}", f"received {signum.name} again"]
    assert signal.getsignal(signum) is before


async def test_under_nohup_a_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(signals.watch, pytest.fail, pytest.fail)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            nursery.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_signal_that_came_early_is_the_first_one(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    async with trio.open_nursery() as nursery:
        early = [signal.SIGHUP, signal.SIGTERM]
        await nursery.start(
            lambda task_status: signals.watch(
                heard.append, heard.append, early=early, task_status=task_status
            )
        )
        assert heard == ["received SIGHUP"]
        for pause in (0.5, 1.0):
            await trio.sleep(pause)
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert heard == ["received SIGHUP", "received SIGTERM again"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_signal_is_lost_before_a_loop_or_ends_the_process_after_it(
    number: signal.Signals,
) -> None:
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
