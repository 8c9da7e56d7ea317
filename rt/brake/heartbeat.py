"""The device process's sign of life and the brake's outcome, in anonymous shared memory that the root makes and all three share.

It has no name in /dev/shm that could be removed, and its seals keep it from being truncated. It
holds words of 8 bytes, aligned, which the machine reads and writes whole:

| word | writer | meaning |
| --- | --- | --- |
| 0 | device process | time stamp (ns of CLOCK_BOOTTIME) of its last sign of life; 0 while no device can move |
| 1 | brake | the stamp in word 0 over which the brake has disabled every line; 0 for none |
| 2 | brake | lines on which DEV_DISABLE is still to be written |
| 3 | device process | when the leases that it saw last end if they are not renewed (ns of CLOCK_BOOTTIME); 0 for unknown |

From `ORDERS_OFFSET` on it holds words of the root for the device process.

Invariant: every word has one writer. The brake writes word 1 only when the kernel has sent
DEV_DISABLE on every line, or its device is gone.
"""

import fcntl
import mmap
import os
import time
from typing import Final

SIZE: Final = mmap.PAGESIZE
ORDERS_OFFSET: Final = 1024
"""Where the words of the root begin that commanders cannot overwrite (`rt.buffer.lease`)."""
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def make() -> int:
    """Make the memory; its descriptor, which the caller closes."""
    fd = os.memfd_create("heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def map_orders(fd: int, size: int) -> memoryview:
    """The part of the memory that holds the words of the root; the descriptor is not needed any more when this returns."""
    return memoryview(mmap.mmap(fd, SIZE))[ORDERS_OFFSET : ORDERS_OFFSET + size]


class Heartbeat:
    """The words in that memory.

    Args:
        fd: The memory's descriptor; not needed any more when this returns.
    """

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE)
        self._words = memoryview(self._memory)[:32].cast("Q")

    @property
    def stamp(self) -> int:
        """The time of the last sign of life (ns of CLOCK_BOOTTIME); 0 while no device can move."""
        return self._words[0]

    @property
    def is_settled(self) -> bool:
        """Whether no device can move: the device process says so, or the brake has disabled every device over its last stamp."""
        stamp, settled, pending, _ = self._words
        return not pending and stamp in {0, settled}

    @property
    def expiry(self) -> int:
        """When the permission to move ends if nothing renews it (ns of CLOCK_BOOTTIME); 0 if that is not known."""
        return self._words[3]

    def renew(self, expiry: int = 0) -> bool:
        """Stamp the time.

        Args:
            expiry: When the permission to move ends if nothing renews it (ns of CLOCK_BOOTTIME); 0 if
                it is as before.

        Returns:
            Whether that was the first stamp since `clear`, so that the brake is to be rung.
        """
        first = self._words[0] == 0
        if expiry:
            self._words[3] = expiry
        self._words[0] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return first

    def clear(self) -> None:
        """Say that no device can move."""
        self._words[3] = 0
        self._words[0] = 0

    def set_pending(self, lines: int) -> None:
        """Say on how many lines the brake has still to write DEV_DISABLE."""
        if self._words[2] != lines:
            self._words[2] = lines

    def settle(self, stamp: int) -> None:
        """Say that the brake has disabled every device over a stamp."""
        self._words[1] = stamp

    def close(self) -> None:
        """Unmap the memory."""
        self._words.release()
        self._memory.close()
