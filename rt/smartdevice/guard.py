"""The safety guard: devices move only while somebody proves that he is alive.

Whoever commands devices renews a lease in shared memory. The guard looks at the leases: `open` compares their stamps with the
clock at the moment of asking, so that no write leaves on the word of a task that is late. When a lease ends, by release, by
silence or by the death of its holder, the guard has the devices disabled that its holder moved, and every device when it was the
last; at once, and it says why.

While no lease is fresh the guard waits for the doorbell and costs nothing. While one is, it sleeps until the first of the stamps
that it has seen would expire, or the root's sign of life, and watches the holders' processes, so that a kill is answered in a millisecond and not after a time-out.
"""

import os
import time
from collections.abc import Callable
from typing import Final

import trio

from rt import log
from rt.buffer import LeaseTable
from rt.buffer.device import ALL_SEATS
from rt.buffer.lease import SLOTS

_RELEASED: Final = "the lease was given up"
_SILENT: Final = "the lease was not renewed in time"
_ROOTLESS: Final = "the root does not answer"
_STOPPING: Final = "this process stops"
_SLACK: Final = 0.0005
"""How much later than a stamp's expiry the guard looks, in s: a look that comes too early has to be repeated."""


class SafetyGuard:
    """Says whether anything may move, and stops what may not.

    Args:
        leases: The robot's leases.
        on_lapse: Called, in the event loop, whenever leases have ended, with the bitmap of their seats, or `ALL_SEATS` if no lease
            is left; has to disable what those seats moved, or every device, and return at once.
    """

    def __init__(self, leases: LeaseTable, on_lapse: Callable[[int], None]) -> None:
        self._leases = leases
        self._on_lapse = on_lapse
        self._log = log.get_logger()
        self._shut = False
        self._armed = 0
        self._told = False
        self._news = trio.Event()
        self._holders: dict[int, int] = {}

    @property
    def open(self) -> bool:
        """Whether a write of anybody may be sent at this very moment."""
        return self.allowed != 0

    @property
    def allowed(self) -> int:
        """The bitmap of the seats whose writes may be sent at this very moment."""
        fresh = 0 if self._shut else self._leases.fresh()
        if fresh & ~self._armed:
            self._arm(fresh)  # nothing moves unwatched, even if the doorbell's ring has not been heard yet
        return fresh

    def dropped(self, port: str, count: int) -> None:
        """Take note that writes were dropped while nothing may move: said once until the next lease.

        Args:
            port: The line of the device that they were for.
            count: How many parameters.
        """
        if not self._told and not self._shut:
            self._told = True
            self._log.warning(
                "writes to devices are dropped: no mode is running that may move them", port=port, params=count
            )

    def look(self) -> None:
        """Look at the leases now, as when the doorbell rang, and have disabled what may not move any more."""
        ended = self._armed & ~self.allowed
        if ended:
            self._lapse(ended)
        elif self._present() != self._holders:
            self._news.set()

    def shut(self) -> None:
        """Let nothing move any more, whatever the leases say; for the end of this process."""
        self._shut = True
        if self._armed:
            self._lapse(self._armed, _STOPPING)

    async def run(self) -> None:
        """Watch the leases until cancelled. Somebody else waits for the doorbell and calls `look`."""
        while True:
            self._news = trio.Event()
            self.look()
            if self._armed:
                await self._watch()
            else:
                await self._news.wait()

    async def _watch(self) -> None:
        """Wait until there is news: a lease has ended or begun, or another process holds it."""
        self._holders = self._present()
        async with trio.open_nursery() as nursery:
            for pid in set(self._holders.values()):
                nursery.start_soon(self._watch_process, pid)
            while not self._news.is_set():
                expires = min((holder.expires for holder in self._leases.holders()), default=0.0)
                expires = min(expires, self._leases.root_expires)
                with trio.move_on_after(max(expires - time.monotonic(), 0.0) + _SLACK):
                    await self._news.wait()
                self.look()
            nursery.cancel_scope.cancel()

    async def _watch_process(self, pid: int) -> None:
        """Wait for a holder's process to end, and take its leases away."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            pass
        except OSError:
            return  # the stamps have to do
        else:
            with os.fdopen(fd, "rb", buffering=0) as file:
                await trio.lowlevel.wait_readable(file)
        ended = 0
        for slot, holder in self._holders.items():
            if holder == pid:
                self._leases.revoke(slot)
                ended |= 1 << slot
        if ended & self._armed:
            self._lapse(ended & self._armed, f"the process that held the lease has ended (pid {pid})")
        self._news.set()

    def _present(self) -> dict[int, int]:
        return {holder.slot: holder.pid for holder in self._leases.holders()}

    def _arm(self, fresh: int) -> None:
        self._armed |= fresh
        self._told = False
        self._holders = self._present()
        self._news.set()

    def _lapse(self, ended: int, reason: str = "") -> None:
        self._armed &= ~ended
        self._news.set()
        self._on_lapse(ended if self._armed else ALL_SEATS)
        # A slot that is cleared has to be begun again, and that rings the doorbell.
        slots = [slot for slot in range(SLOTS) if not self._armed or ended >> slot & 1]
        silent = [slot for slot in slots if self._leases.slot(slot).release()]
        reason = reason or (self._cause() if silent else _RELEASED)
        say = self._log.info if reason in {_RELEASED, _STOPPING} else self._log.warning
        if self._armed:
            say("the devices that it moved are disabled", reason=reason, seats=ended)
        else:
            say("every device is disabled", reason=reason)

    def _cause(self) -> str:
        return _SILENT if self._leases.root_alive() else _ROOTLESS
