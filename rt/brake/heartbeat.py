"""The heartbeat of the device process and the brake's result, in anonymous shared memory.

The root creates the memory, and all three processes share it. It has no name in /dev/shm that could
be removed, and it is sealed against truncation. It contains aligned 8-byte words, which the machine
reads and writes atomically:

| word | writer | meaning |
| --- | --- | --- |
| 0 | device process | its last heartbeat (ns of CLOCK_BOOTTIME); 0 while no device can move |
| 1 | brake | the value of word 0 for which it has disabled every line; 0 for none |
| 2 | brake | number of lines on which DEV_DISABLE is still to be written |
| 3 | device process | expiry of the leases that it last saw (ns of CLOCK_BOOTTIME); 0 for unknown |

The words of the root for the device process begin at `ORDERS_OFFSET`.

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
"""Offset of the root's words, which commanders cannot overwrite (`rt.buffer.lease`)."""
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def make() -> int:
    """Create the memory, and return its descriptor, which the caller closes."""
    fd = os.memfd_create("heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def map_orders(fd: int, size: int) -> memoryview:
    """Map the part of the memory with the root's words; the descriptor can be closed afterwards."""
    return memoryview(mmap.mmap(fd, SIZE))[ORDERS_OFFSET : ORDERS_OFFSET + size]


class Heartbeat:
    """The words in that memory.

    Args:
        fd: The memory's descriptor, which can be closed afterwards.
    """

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE)
        self._words = memoryview(self._memory)[:32].cast("Q")

    @property
    def stamp(self) -> int:
        """The last heartbeat (ns of CLOCK_BOOTTIME); 0 while no device can move."""
        return self._words[0]

    @property
    def is_settled(self) -> bool:
        """Whether no device can move: the stamp is cleared, or the brake disabled every device."""
        stamp, settled, pending, _ = self._words
        return not pending and stamp in {0, settled}

    @property
    def expiry(self) -> int:
        """When the leases expire if none is renewed (ns of CLOCK_BOOTTIME); 0 for unknown."""
        return self._words[3]

    def renew(self, expiry: int = 0) -> bool:
        """Stamp the time.

        Args:
            expiry: When the leases expire if none is renewed (ns of CLOCK_BOOTTIME); 0 keeps the
                previous value.

        Returns:
            Whether this is the first stamp since `clear`, so that the brake must be woken.
        """
        first = self._words[0] == 0
        if expiry:
            self._words[3] = expiry
        self._words[0] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return first

    def clear(self) -> None:
        """Record that no device can move."""
        self._words[3] = 0
        self._words[0] = 0

    def set_pending(self, lines: int) -> None:
        """Record on how many lines the brake still has to write DEV_DISABLE."""
        if self._words[2] != lines:
            self._words[2] = lines

    def settle(self, stamp: int) -> None:
        """Record that the brake has disabled every device for a stamp."""
        self._words[1] = stamp

    def close(self) -> None:
        """Unmap the memory."""
        self._words.release()
        self._memory.close()
