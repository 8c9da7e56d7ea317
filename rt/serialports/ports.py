"""Keeps serial ports open: opens each port that appears, and reopens it until it vanishes.

A port that cannot be opened is logged once, with a remedy, and so is its later success.
"""

import errno
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Final

import trio

from rt import log
from rt.link.link import Link
from rt.link.serial import DEFAULT_BAUD_RATE, SerialLink
from rt.serialports.open_error import Holder, access_remedy, held_remedy, holders
from rt.serialports.port_state import PortChange

MIN_RETRY: Final = 0.05
MAX_RETRY: Final = 5.0
"""Shortest and longest time until a port is opened again, in s; doubled each time."""

MIN_ATTEMPT_INTERVAL: Final = 0.02
"""Least time between two attempts, in s, however often the kernel announces a port."""

TRANSIENT_TIME: Final = 1.2
"""How long a port may fail because it is vanishing or held until that is logged, in s.

The observer should report first that it is gone, and the brake holds the port of a device process
that has ended for up to 1 s.
"""

_VANISHING: Final = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})


async def keep_ports_open(
    changes: AsyncIterable[PortChange],
    run: Callable[[Link], Awaitable[bool]],
    *,
    baud_rate: int = DEFAULT_BAUD_RATE,
    min_retry: float = MIN_RETRY,
    max_retry: float = MAX_RETRY,
) -> None:
    """Run a device on every serial port. Never returns.

    Each port has a task from when it appears until it vanishes. A port that is announced again is
    opened at once, without waiting for the next retry.

    Args:
        changes: Which ports appear, vanish and are announced.
        run: Runs a device on a link until it is gone, and closes the link; returns whether a device
            was there.
        baud_rate: Serial speed.
        min_retry: Shortest time until a port is opened again, in s; doubled each time.
        max_retry: Longest time until a port is opened again, in s.
    """
    ports: dict[str, _Port] = {}
    async with trio.open_nursery() as nursery:
        async for change in changes:
            leaving = {name: ports.pop(name) for name in sorted(change.vanished)}
            for port in leaving.values():
                port.scope.cancel()
            for name in sorted(change.appeared):
                ports[name] = _Port(name, run, baud_rate, min_retry, max_retry)
                nursery.start_soon(ports[name].keep_open, leaving.get(name))
            for name in change.announced:
                ports[name].retry_now()


class _Port:
    """One port, from when it appears until it vanishes."""

    def __init__(
        self,
        name: str,
        run: Callable[[Link], Awaitable[bool]],
        baud_rate: int,
        min_retry: float,
        max_retry: float,
    ) -> None:
        self.scope = trio.CancelScope()
        self._name = name
        self._run = run
        self._baud_rate = baud_rate
        self._min_retry = min_retry
        self._max_retry = max_retry
        self._closed = trio.Event()
        self._announced = trio.Event()
        self._errors = _OpenErrors(name)

    def retry_now(self) -> None:
        """Open it at once if it is waiting for its next retry."""
        self._announced.set()

    async def keep_open(self, predecessor: "_Port | None") -> None:
        """Keep it open until its scope is cancelled, once its predecessor has been closed.

        The predecessor is the port that had the same name before.
        """
        try:
            with self.scope:
                if predecessor is not None:
                    await predecessor._closed.wait()  # noqa: SLF001 - of the same class
                await self._open_repeatedly()
        finally:
            self._closed.set()

    async def _open_repeatedly(self) -> None:
        delay = self._min_retry
        while True:
            self._announced = trio.Event()
            try:
                link = await SerialLink.open(self._name, baud_rate=self._baud_rate)
                self._errors.record_success()
                if await self._run(link):
                    delay = self._min_retry
            except OSError as error:
                await self._errors.record_failure(error)
            await trio.sleep(MIN_ATTEMPT_INTERVAL)
            with trio.move_on_after(delay - MIN_ATTEMPT_INTERVAL) as waiting:
                await self._announced.wait()
            delay = min(2 * delay, self._max_retry) if waiting.cancelled_caught else self._min_retry


class _OpenErrors:
    """Logs why a port cannot be opened: each reason once, and the later success once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._log = log.get_logger().bind(port=name)
        self._since = 0.0
        self._failures = 0
        self._logged: set[int] = set()

    async def record_failure(self, error: OSError) -> None:
        """Log a failed attempt, unless its reason was logged or may be transient."""
        now = trio.current_time()
        if not self._failures:
            self._since = now
        self._failures += 1
        number = error.errno or 0
        if number in self._logged or not self._is_persistent(number, now):
            return
        self._logged.add(number)
        self._log.warning(
            "cannot open serial port",
            reason=error.strerror or str(error),
            remedy=await self._remedy(number),
        )

    def record_success(self) -> None:
        """Log a successful attempt after a logged failure."""
        if self._logged:
            self._log.info("serial port opened", attempts=self._failures + 1)
        self._failures = 0
        self._logged.clear()

    def _is_persistent(self, number: int, now: float) -> bool:
        if number in _VANISHING:
            return now - self._since >= TRANSIENT_TIME
        if number == errno.EBUSY and now - self._since < TRANSIENT_TIME:
            # The brake holds it while it disables the device of a process that has ended.
            return False
        # A port that has just appeared belongs to root for a moment, so only the second failure
        # counts.
        return self._failures > 1

    async def _remedy(self, number: int) -> str:
        if number in _FORBIDDEN:
            return access_remedy(self._name)
        if number == errno.EBUSY:
            return held_remedy(self._name, await self._holder())
        if number in _VANISHING:
            return (
                "it disconnects while it is opened: "
                "check the cable, its plug and the power of the USB hub"
            )
        return "none known; rt retries"

    async def _holder(self) -> Holder | None:
        for holder in holders(self._name):
            if holder is not None:
                return holder
            await trio.lowlevel.checkpoint()  # there may be many processes
        return None
