"""SIGINT and SIGTERM as a wish to end, for a program that is one event loop in the main thread."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import trio

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def answered(answer: Callable[[str], None]) -> Iterator[None]:
    """Have the signals call a function in this event loop, with their name, instead of ending the process.

    To be entered before everything else and left after it, so that the second half of a doubled
    signal does not end the process in the middle of its end. The handlers of before are then back
    in their place.
    """
    token = trio.lowlevel.current_trio_token()

    def take(number: int, _frame: FrameType | None) -> None:
        token.run_sync_soon(answer, signal.Signals(number).name, idempotent=True)

    before = [(number, signal.signal(number, take)) for number in STOP_SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
