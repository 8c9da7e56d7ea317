"""Benchmark of the time from the kernel event of a port to the attempt to open it."""

import errno
import functools
import os
import time
from pathlib import Path
from unittest import mock

import trio
from bench.figures import MS, Figure

from rt.link.link import Link
from rt.link.serial import SerialLink
from rt.serialports import uevents
from rt.serialports.ports import keep_ports_open
from rt.serialports.udev import EventObserver

PORT = "/dev/ttyS0"
UEVENT = Path("/sys/class/tty/ttyS0/uevent")
RUNS = 20
BAR = 100.0


def announce() -> None:
    """Make the kernel announce the first serial port."""
    UEVENT.write_text("add")


def attempt() -> list[Figure]:
    """Measure from a kernel event to opening the port; return nothing without permission."""
    if not os.access(UEVENT, os.W_OK) or not Path(PORT).exists():
        return []
    with mock.patch.object(uevents, "UDEVD", Path("/nonexistent")):
        delays = trio.run(_measure)
    return [Figure("uevent -> attempt to open the port, worst", max(delays) * MS, "ms", BAR, RUNS)]


async def _measure() -> list[float]:
    tries, tried = trio.open_memory_channel[float](1000)

    async def refuse(port: str, *, baud_rate: int) -> SerialLink:
        del baud_rate
        await tries.send(time.monotonic())
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), port)

    async def run(link: Link) -> bool:
        raise AssertionError(link)

    delays = []
    observer = EventObserver([PORT], rescan=1000)
    keep_open = functools.partial(keep_ports_open, min_retry=1000, max_retry=1000)
    with mock.patch.object(SerialLink, "open", refuse):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_open, observer.changes(), run)
            with trio.fail_after(60):
                await tried.receive()
                for _ in range(RUNS):
                    await trio.sleep(0.1)
                    announced = time.monotonic()
                    announce()
                    delays.append(await tried.receive() - announced)
            nursery.cancel_scope.cancel()
    return delays
