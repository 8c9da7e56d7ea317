"""The signals that end a robot: the first one in order, a later one now.

An executable that unpacks itself is two processes, and a terminal or systemd signals both: the outer one hands its signal on,
so the inner one gets every signal twice. Therefore a second signal within a second is the first one again.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from enum import Enum, auto

import trio

ECHO = 1.0
"""Seconds after the first signal in which another one counts as the same."""


class Verdict(Enum):
    """What a signal means."""

    ORDERLY = auto()
    ECHO = auto()
    NOW = auto()


def judge(first: float | None, now: float) -> Verdict:
    """Say what a signal means.

    Args:
        first: When the first one came, in seconds, or None if this is the first.
        now: When this one came.
    """
    if first is None:
        return Verdict.ORDERLY
    return Verdict.ECHO if now - first <= ECHO else Verdict.NOW


async def watch(
    orderly: Callable[[str], None],
    now: Callable[[str], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Receive SIGINT, SIGTERM and SIGHUP until cancelled; the handlers of before are then back in their place.

    Args:
        orderly: Called once, with the reason, at the first signal.
        now: Called with the reason at each one that comes later than `ECHO` seconds after the first.
        task_status: Started when the signals are received.
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup asked for it to be ignored
        signals.append(signal.SIGHUP)
    first: float | None = None
    with trio.open_signal_receiver(*signals) as received:
        task_status.started()
        async for signum in received:
            name = signal.Signals(signum).name
            time = trio.current_time()
            match judge(first, time):
                case Verdict.ORDERLY:
                    first = time
                    orderly(f"received {name}")
                case Verdict.NOW:
                    now(f"received {name} again")
                case Verdict.ECHO:
                    pass


@contextlib.contextmanager
def kept(*numbers: signal.Signals) -> Iterator[list[int]]:
    """Keep the signals that come before an event loop receives them, and ignore those that come after; for a process's main.

    Without this a doubled signal, of which the second half comes when the receiver is closed already, would end a process in
    the middle of its orderly end. They stay ignored, since the interpreter's end takes a while too.

    Yields:
        What has come so far; whoever begins to receive looks at it once.
    """
    came: list[int] = []
    for number in numbers:
        signal.signal(number, lambda received, _frame: came.append(received))
    try:
        yield came
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
