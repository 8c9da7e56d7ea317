"""How a verb that goes on and on ends: by Ctrl-C, by a signal, or with the outer process of an executable that unpacks itself."""

import signal
from collections.abc import Awaitable, Callable
from types import FrameType

import trio

from rt.process.bootloader import wait_for_bootloader_exit


async def run_until_signal(function: Callable[[], Awaitable[None]]) -> None:
    """Run a function until it returns or a signal asks for the end; then it is cancelled, and further signals change nothing.

    The signals are those of Ctrl-C, of a stop, and of a terminal that is closed, unless somebody
    had them ignored; that the outer process of an executable was killed is the same as a signal.
    For the end of a command: after such a signal the others stay without effect, since an
    executable that unpacks itself gets each twice.
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
    """Be a handler that does nothing: other than with SIG_IGN, processes that are started do not inherit it."""
