"""The safety guard: devices move only while somebody proves that he is alive.

Whoever commands devices renews a lease in shared memory. The guard looks at the leases: `open` compares their stamps with the
clock at the moment of asking, so that no write leaves on the word of a task that is late. When the last lease lapses, by release,
by silence or by the death of its holder, the guard has every device disabled at once and says why.

While no lease is fresh the guard waits for the doorbell and costs nothing. While one is, it sleeps until the stamps that it has
seen would expire, or the root's sign of life, and watches the holders' processes, so that a kill is answered in a millisecond and not after a time-out.
"""

import os
import time
from collections.abc import Callable
from typing import Final

import trio

from rt import log
from rt.buffer import LeaseTable
from rt.buffer.lease import SLOTS

_RELEASED: Final = "the lease was given up"
_SILENT: Final = "the lease was not renewed in time"
_ROOTLESS: Final = "the root does not answer"
_STOPPING: Final = "this process stops"
_SLACK: Final = 0.0005
"""How much later than a stamp's expiry the guard looks, in s: a look that comes too early has to be repeated."""


class SafetyGuard:
    """Says whether anything may move, and stops everything when nothing may.

    Args:
        leases: The robot's leases.
        on_lapse: Called, in the event loop, whenever the last fresh lease has lapsed; has to disable every device and return
            at once.
    """

    def __init__(self, leases: LeaseTable, on_lapse: Callable[[], None]) -> None:
        self._leases = leases
        self._on_lapse = on_lapse
        self._log = log.get_logger()
        self._shut = False
        self._armed = False
        self._told = False
        self._news = trio.Event()
        self._holders: dict[int, int] = {}

    @property
    def open(self) -> bool:
        """Whether a write may be sent at this very moment."""
        if self._shut or not self._leases.fresh():
            return False
        if not self._armed:
            self._arm()  # nothing moves unwatched, even if the doorbell's ring has not been heard yet
        return True

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
        """Look at the leases now, as when the doorbell rang; disables everything if the last one has lapsed."""
        if not self.open:
            if self._armed:
                self._lapse()
        elif self._present() != self._holders:
            self._news.set()

    def shut(self) -> None:
        """Let nothing move any more, whatever the leases say; for the end of this process."""
        self._shut = True
        if self._armed:
            self._lapse(_STOPPING)

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
        """Wait until there is news: the leases have lapsed, or other processes hold them."""
        self._holders = self._present()
        async with trio.open_nursery() as nursery:
            for pid in set(self._holders.values()):
                nursery.start_soon(self._watch_process, pid)
            while not self._news.is_set():
                expires = max((holder.expires for holder in self._leases.holders()), default=0.0)
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
        for slot, holder in self._holders.items():
            if holder == pid:
                self._leases.revoke(slot)
        if not self.open and self._armed:
            self._lapse(f"the process that held the lease has ended (pid {pid})")
        self._news.set()

    def _present(self) -> dict[int, int]:
        return {holder.slot: holder.pid for holder in self._leases.holders()}

    def _arm(self) -> None:
        self._armed = True
        self._told = False
        self._holders = self._present()
        self._news.set()

    def _lapse(self, reason: str = "") -> None:
        self._armed = False
        self._news.set()
        self._on_lapse()
        # A slot that is cleared has to be begun again, and that rings the doorbell.
        silent = [slot for slot in range(SLOTS) if self._leases.slot(slot).release()]
        reason = reason or (self._cause() if silent else _RELEASED)
        say = self._log.info if reason in {_RELEASED, _STOPPING} else self._log.warning
        say("every device is disabled", reason=reason)

    def _cause(self) -> str:
        return _SILENT if self._leases.root_alive() else _ROOTLESS
