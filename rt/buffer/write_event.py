"""An event between processes: an eventfd that says that something changed, not what.

Signals between two checks are merged. Signalling never blocks.
"""

import contextlib
import os

import trio


class WriteEvent:
    """An eventfd that children inherit.

    Args:
        fd: An inherited eventfd, or None to create one, which `close` closes.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._owned = fd is None
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if fd is None else fd

    def signal(self) -> None:
        """Wake the waiting process, from any thread; idempotent until it wakes."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.fd, 1)

    async def wait(self) -> None:
        """Wait until the event has been signalled since the last check; a checkpoint.

        Cancellation loses no signal.
        """
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            if self.clear():
                return

    def clear(self) -> bool:
        """Clear the event, and return whether it was signalled."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the eventfd if it was created here."""
        if self._owned and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
