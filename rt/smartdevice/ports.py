"""Keeps serial ports open: each port that appears is opened, run, and opened again until it vanishes."""

import errno
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Final

import trio

from rt import log
from rt.smartdevice.link import DEFAULT_BAUD_RATE, Link, SerialLink
from rt.smartdevice.observer import PortChange

FIRST_RETRY: Final = 0.05
LAST_RETRY: Final = 5.0
"""Shortest and longest time until a port is opened again, in s; doubled each time in between."""

_REMEDIES: Final = {
    errno.EACCES: "add the user to the group that owns the port (dialout on most systems), or install the udev rules",
    errno.EPERM: "add the user to the group that owns the port (dialout on most systems), or install the udev rules",
    errno.EBUSY: "close the other program that has it open (a serial monitor, another robot)",
}


async def keep_ports_open(
    changes: AsyncIterable[PortChange], run: Callable[[Link], Awaitable[None]], *, baud_rate: int = DEFAULT_BAUD_RATE
) -> None:
    """Run a device on every serial port there is, for ever. Each port has a task from when it appears until it vanishes.

    Args:
        changes: Which ports appear and vanish.
        run: Runs a device on a link until it is gone, and closes the link.
        baud_rate: Serial speed.
    """
    scopes: dict[str, trio.CancelScope] = {}
    async with trio.open_nursery() as nursery:
        async for change in changes:
            for port in sorted(change.vanished):
                scopes.pop(port).cancel()
            for port in sorted(change.appeared):
                scopes[port] = trio.CancelScope()
                nursery.start_soon(_keep_open, port, run, baud_rate, scopes[port])


async def _keep_open(
    port: str, run: Callable[[Link], Awaitable[None]], baud_rate: int, scope: trio.CancelScope
) -> None:
    logger = log.get_logger().bind(port=port)
    delay, failures = FIRST_RETRY, 0
    with scope:
        while True:
            started = trio.current_time()
            try:
                await run(await SerialLink.open(port, baud_rate=baud_rate))
                failures = 0
            except FileNotFoundError:
                failures = 0  # it vanished; the observer will say so
            except OSError as error:
                failures += 1
                # A port that has just appeared belongs to root for a moment: the second failure is the one to tell of.
                if failures == 2:
                    remedy = _REMEDIES.get(error.errno or 0, "rt tries again")
                    logger.warning(
                        "the serial port cannot be opened", reason=error.strerror or str(error), remedy=remedy
                    )
            if trio.current_time() - started > LAST_RETRY:
                delay = FIRST_RETRY  # it worked for a while, so this is a new trouble
            await trio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY)
