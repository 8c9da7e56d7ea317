"""The signals that end a robot: the first one in order, a later one now.

An executable that unpacks itself is two processes, and a terminal or systemd signals both: the
outer one hands its signal on, so the inner one gets every signal twice. Therefore a second signal
within a second is the first one again.

The rule of this module: from `capture_early_signals` on there is no moment at which one of them is lost, or ends the
process where it stands.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto

import trio

ECHO = 1.0
"""Seconds after the first signal in which another one counts as the same."""


class Meaning(Enum):
    """What a signal means."""

    FIRST = auto()
    ECHO = auto()
    AGAIN = auto()


def classify(first: float | None, now: float) -> Meaning:
    """Say what a signal means.

    Args:
        first: When the first one came, in seconds, or None if this is the first.
        now: When this one came.
    """
    if first is None:
        return Meaning.FIRST
    return Meaning.ECHO if now - first <= ECHO else Meaning.AGAIN


def stop_signals() -> list[signal.Signals]:
    """The signals that ask a robot to stop: SIGINT, SIGTERM, and SIGHUP unless nohup has it ignored."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


async def watch(
    orderly: Callable[[str], None],
    now: Callable[[str], None],
    *,
    early: Sequence[int] = (),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Receive the signals of `stop_signals` until cancelled; the handlers of before are then back in their place.

    Args:
        orderly: Called once, with the reason, at the first signal.
        now: Called with the reason at each one that comes later than `ECHO` seconds after the
            first.
        early: What `capture_early_signals` has kept; the first of them counts as the first signal, now.
        task_status: Started when the signals are received.
    """
    first: float | None = None
    with trio.open_signal_receiver(*stop_signals()) as received:
        if early:  # looked at only now, when no more of them come
            first = trio.current_time()
            orderly(f"received {signal.Signals(early[0]).name}")
        task_status.started()
        async for signum in received:
            name = signal.Signals(signum).name
            time = trio.current_time()
            match classify(first, time):
                case Meaning.FIRST:
                    first = time
                    orderly(f"received {name}")
                case Meaning.AGAIN:
                    now(f"received {name} again")
                case Meaning.ECHO:
                    pass


@contextlib.contextmanager
def capture_early_signals(*numbers: signal.Signals) -> Iterator[list[int]]:
    """Keep the signals that come before an event loop receives them, and ignore those that come after; for a process's main.

    Without this a doubled signal, of which the second half comes when the receiver is closed
    already, would end a process in the middle of its orderly end. They stay ignored, since the
    interpreter's end takes a while too.

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
