"""A doorbell between processes: an eventfd that says that something is new, not what.

Rings between two looks count as one. A ring never waits.
"""

import contextlib
import os

import trio


class WriteEvent:
    """An eventfd that children inherit.

    Args:
        fd: An eventfd that was inherited, or None to make one. Whoever makes one closes it.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._owned = fd is None
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if fd is None else fd

    def signal(self) -> None:
        """Let the waiting process look. Any thread; a full counter means that it has been rung."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.fd, 1)

    async def wait(self) -> None:
        """Wait until the bell has been rung since the last time; a checkpoint. A cancel takes no ring away."""
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            if self.clear():
                return

    def clear(self) -> bool:
        """Forget the rings so far; whether there were any."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the eventfd if it was made here."""
        if self._owned and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
