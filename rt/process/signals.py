"""The signals that stop a process, from its start to its end, and what a bootloader does with them.

A one-file executable is two processes, and a terminal or systemd signals both. The bootloader
process forwards its signal, so the program receives every signal twice. Therefore a second signal
within `DUPLICATE_WINDOW` counts as the first one.

Invariant: from `capture_early_signals` on, no such signal is lost or kills the process.
"""

import atexit
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import FrameType

import trio

DUPLICATE_WINDOW = 1.0
"""Time after the first signal in which another one counts as the same (s)."""


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a robot: SIGINT, SIGTERM, and SIGHUP unless nohup ignores it."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


async def watch(
    on_first: Callable[[str], None],
    on_repeat: Callable[[str], None],
    early: Sequence[int] = (),
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Receive the signals of `stop_signals` until cancelled, and restore their handlers then.

    Args:
        on_first: Called once, with a reason, at the first signal.
        on_repeat: Called with a reason at each signal that arrives later than `DUPLICATE_WINDOW`
            after the first.
        early: The signals that `capture_early_signals` captured. The first of them counts as the
            first signal and as arriving now.
        task_status: Started when signals are received.
    """
    first: float | None = None
    with trio.open_signal_receiver(*stop_signals()) as received:
        if early:  # read only now, when no more signals are added
            first = trio.current_time()
            on_first(f"received {signal.Signals(early[0]).name}")
        task_status.started()
        async for signum in received:
            name = signal.Signals(signum).name
            time = trio.current_time()
            if first is None:
                first = time
                on_first(f"received {name}")
            elif time - first > DUPLICATE_WINDOW:
                on_repeat(f"received {name} again")


async def wait(*numbers: signal.Signals, early: Sequence[int]) -> str:
    """Wait for the first of some signals, and return its name.

    Args:
        *numbers: The signals. Their handlers are restored when one has arrived.
        early: The signals that `capture_early_signals` captured; the first of them is returned.
    """
    with trio.open_signal_receiver(*numbers) as received:
        # Read only now, when no more signals are added.
        number = early[0] if early else await anext(received)
    return signal.Signals(number).name


@contextlib.contextmanager
def capture_early_signals(*numbers: signal.Signals) -> Iterator[list[int]]:
    """Capture signals until an event loop receives them, and ignore them after the block.

    For the main function of a process. Otherwise a duplicate that arrives after the event loop has
    closed its receiver would kill the process while it stops. The signals stay ignored, because the
    interpreter takes time to exit.

    Yields:
        The signals that have arrived. The receiver reads the list once.
    """
    captured: list[int] = []
    for number in numbers:
        signal.signal(number, lambda received, _frame: captured.append(received))
    try:
        yield captured
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def call_on_signal(function: Callable[[str], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call a function in this event loop, with the name of the signal.

    For a program that is one event loop in the main thread. Enter it first and leave it last, so
    that a duplicate signal does not kill the program while it stops. The previous handlers are
    restored at the end of the block.
    """
    token = trio.lowlevel.current_trio_token()

    def handle(number: int, _frame: FrameType | None) -> None:
        token.run_sync_soon(function, signal.Signals(number).name, idempotent=True)

    previous = [
        (number, signal.signal(number, handle)) for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


async def run_until_signal(function: Callable[[], Awaitable[None]]) -> None:
    """Run a function until it returns, or cancel it on SIGINT, SIGTERM or SIGHUP.

    Signals that are ignored at the call stay ignored. The death of the executable's bootloader
    process also cancels the function. After the first signal, further signals have no effect, also
    after the return, because the executable gets each signal twice.
    """
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handled = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    early: list[int] = []
    # Unlike SIG_IGN, child processes do not inherit this handler.
    before = {
        number: signal.signal(number, lambda received, _frame: early.append(received))
        for number in handled
    }
    stopped = False
    try:
        async with trio.open_nursery() as nursery:

            async def end_at_signal() -> None:
                nonlocal stopped
                await wait(*handled, early=early)
                stopped = True
                nursery.cancel_scope.cancel()

            async def end_with_bootloader() -> None:
                await wait_for_bootloader_exit()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end_at_signal)
            nursery.start_soon(end_with_bootloader)
            await function()
            nursery.cancel_scope.cancel()
    finally:
        if not stopped:
            for number, handler in before.items():
                signal.signal(number, handler)


async def wait_for_bootloader_exit() -> None:
    """Wait until the bootloader process exits; forever when run from source.

    It is the parent that the user sees, and it removes the unpacked files. If it is killed, the
    program has to exit, and this process removes the files when it exits.
    """
    if not getattr(sys, "frozen", False):
        await trio.sleep_forever()
    try:
        fd = os.pidfd_open(os.getppid())
    except OSError:
        await trio.sleep_forever()
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
    atexit.register(shutil.rmtree, str(getattr(sys, "_MEIPASS", "")), ignore_errors=True)
