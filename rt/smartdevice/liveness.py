"""Liveness: finds devices that have fallen silent.

Any intact frame proves that a device is alive. One task checks all devices every 0.25 s, and once a
second while there is none. A device that has been silent for 1 s gets a heartbeat request at every
check until it sends something, so that one lost frame does not matter; after 2 s of silence it is
lost. The same checks find devices that answer but do not report what they were subscribed to
(`rt.smartdevice.reports`).
"""

import enum
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio

CHECK_INTERVAL: Final = 0.25
EMPTY_INTERVAL: Final = 1.0
"""Time between two checks in s, while there are devices and while there is none."""
ASKED_AFTER: Final = 1.0
LOST_AFTER: Final = 2.0
"""Silence after which a device is probed, and after which it is lost, in s."""


class Verdict(enum.Enum):
    """What a device's silence means."""

    ALIVE = "alive"
    ASK = "ask"
    LOST = "lost"


def judge(silence: float) -> Verdict:
    """Return what it means that nothing intact has come from a device for so many seconds."""
    if silence >= LOST_AFTER:
        return Verdict.LOST
    return Verdict.ASK if silence >= ASKED_AFTER else Verdict.ALIVE


class Watched(Protocol):
    """A device whose liveness is checked.

    Attributes:
        last_received: When its last intact frame was received, by trio's clock (s).
    """

    last_received: float

    def send_probe(self) -> None:
        """Send a heartbeat request if the line takes it; returns at once and never raises."""

    def mark_lost(self) -> None:
        """Mark the device as silent; returns at once."""

    def ignore_gap(self, seconds: float) -> None:
        """Do not count ``seconds`` as silence; returns at once."""

    def check_reports(self, now: float) -> None:
        """Check whether it reports what it was subscribed to; returns at once and never raises."""


async def watch(
    devices: Callable[[], Iterable[Watched]], flush: Callable[[], object] = lambda: None
) -> None:
    """Watch devices until cancelled.

    A process that was stopped for a while has not read what came meanwhile, so the time by which a
    check is late does not count as silence.

    Args:
        devices: Returns the current devices; called at every check.
        flush: Called after every check.
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
