"""The device process's sign of life: one time stamp in anonymous shared memory that the root makes and both processes inherit.

It has no name in /dev/shm that could be removed, and its seals keep it from being truncated. The device process is its one writer.
The word is 8 bytes, aligned, which the machine reads and writes whole.
"""

import fcntl
import mmap
import os
import time
from typing import Final

SIZE: Final = mmap.PAGESIZE
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def make() -> int:
    """Make the memory; its descriptor, which the caller closes."""
    fd = os.memfd_create("heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


class Heartbeat:
    """The time stamp in that memory (ns of CLOCK_BOOTTIME), 0 while no device can move.

    Args:
        fd: The memory's descriptor; not needed any more when this returns.
    """

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE)
        self._word = memoryview(self._memory)[:8].cast("Q")

    @property
    def stamp(self) -> int:
        """The stamp."""
        return self._word[0]

    def beat(self) -> bool:
        """Stamp the time; True if that was the first stamp since `rest`, so that the brake is to be rung."""
        first = self._word[0] == 0
        self._word[0] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return first

    def rest(self) -> None:
        """Say that no device can move."""
        self._word[0] = 0

    def close(self) -> None:
        """Unmap the memory."""
        self._word.release()
        self._memory.close()
