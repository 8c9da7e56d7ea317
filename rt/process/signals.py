"""The signals that end a robot: the first one in order, a later one now.

An executable that unpacks itself is two processes, and a terminal or systemd signals both: the
outer one hands its signal on, so the inner one gets every signal twice. Therefore a second signal
within a second is the first one again.

The rule of this module: from `kept` on there is no moment at which one of them is lost, or ends the
process where it stands.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
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


def stopping() -> list[signal.Signals]:
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
    """Receive the signals of `stopping` until cancelled; the handlers of before are then back in their place.

    Args:
        orderly: Called once, with the reason, at the first signal.
        now: Called with the reason at each one that comes later than `ECHO` seconds after the
            first.
        early: What `kept` has kept; the first of them counts as the first signal, now.
        task_status: Started when the signals are received.
    """
    first: float | None = None
    with trio.open_signal_receiver(*stopping()) as received:
        if early:  # looked at only now, when no more of them come
            first = trio.current_time()
            orderly(f"received {signal.Signals(early[0]).name}")
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
