"""Whether devices are alive: any intact frame is a sign of life, and a device that gives none is asked for one.

One task looks at all devices, four times a second, and once a second while there is none. A device
that has been silent for 1 s is asked by a heartbeat request at every look until it says something,
so that one lost frame is no verdict; one that has been silent for 2 s is lost. A device that
answers but does not report what it was subscribed to is judged at the same looks
(`rt.smartdevice.reports`).
"""

import enum
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio

CHECK_INTERVAL: Final = 0.25
EMPTY_INTERVAL: Final = 1.0
"""Time between two looks in s, while there are devices and while there is none."""
ASKED_AFTER: Final = 1.0
LOST_AFTER: Final = 2.0
"""How long a device may be silent until it is asked for a sign of life, and until it is lost, in s."""


class Verdict(enum.Enum):
    """What a device's silence means."""

    ALIVE = "alive"
    ASK = "ask"
    LOST = "lost"


def judge(silence: float) -> Verdict:
    """What it means that nothing intact has come from a device for so many seconds."""
    if silence >= LOST_AFTER:
        return Verdict.LOST
    return Verdict.ASK if silence >= ASKED_AFTER else Verdict.ALIVE


class Watched(Protocol):
    """A device that has to give signs of life.

    Attributes:
        heard: When its last intact frame was taken in, by trio's clock.
    """

    last_received: float

    def send_probe(self) -> None:
        """Ask it for a sign of life, if the line takes the question; returns at once and never raises."""

    def mark_lost(self) -> None:
        """Take note that it is silent; returns at once."""

    def ignore_gap(self, seconds: float) -> None:
        """Do not count so many seconds as silence; returns at once."""

    def check_reports(self, now: float) -> None:
        """Check whether it reports what it was subscribed to; returns at once and never raises."""


async def watch(
    devices: Callable[[], Iterable[Watched]], flush: Callable[[], object] = lambda: None
) -> None:
    """Watch over devices until cancelled.

    A process that was stopped for a while has not read what came meanwhile: the time by which a
    look is late is nobody's silence.

    Args:
        devices: Gives those that there are; called at every look.
        flush: Called after every look.
    """
    due = trio.current_time()
    interval = CHECK_INTERVAL
    while True:
        due += interval
        await trio.sleep_until(due)
        now = trio.current_time()
        late = now - due
        interval = EMPTY_INTERVAL
        for device in devices():
            interval = CHECK_INTERVAL
            if late > CHECK_INTERVAL:
                device.ignore_gap(late)
            verdict = judge(now - device.last_received)
            if verdict is Verdict.ASK:
                device.send_probe()
            elif verdict is Verdict.LOST:
                device.mark_lost()
            device.check_reports(now)
        flush()
        due = max(due, now)
