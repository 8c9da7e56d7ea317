"""The end of commands that run until Ctrl-C, a signal, or the end of the bootloader process."""

import signal
from collections.abc import Awaitable, Callable
from types import FrameType

import trio

from rt.process.signals import wait_for_bootloader_exit


async def run_until_signal(function: Callable[[], Awaitable[None]]) -> None:
    """Run a function until it returns, or cancel it on SIGINT, SIGTERM or SIGHUP.

    Signals that are ignored at the call stay ignored. The death of the executable's bootloader
    process (see `rt.process.signals`) also cancels the function. After the first signal, further
    signals have no effect, also after the return, because the executable gets each signal twice.
    """
    wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    handled = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _ignore) for number in handled}
    stopped = False
    try:
        with trio.open_signal_receiver(*handled) as received:
            async with trio.open_nursery() as nursery:

                async def listen() -> None:
                    nonlocal stopped
                    async for _ in received:
                        stopped = True
                        nursery.cancel_scope.cancel()

                async def end_with_bootloader() -> None:
                    await wait_for_bootloader_exit()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(listen)
                nursery.start_soon(end_with_bootloader)
                await function()
                nursery.cancel_scope.cancel()
    finally:
        if not stopped:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. Unlike SIG_IGN, child processes do not inherit this handler."""
