"""The brake's duplicate of one line, and how to write to it without blocking.

A duplicate shares the open file of the device process, including its lock and O_NONBLOCK. So no
write blocks, and the lock is held until the line is closed: no other process opens the port while
DEV_DISABLE is being sent. Output that a serial driver has not sent within the time limit is dropped
before the duplicate is closed, because the last close of a serial port waits for it.
"""

import contextlib
import fcntl
import os
import stat
import termios
from typing import Final

from rt.brake import output_queue
from rt.brake.protocol import DISABLE

MS: Final = 1_000_000
TIME_LIMIT: Final = round(output_queue.TIME_LIMIT * 1e9)
"""Time (ns) for which a line may refuse the frame until its device counts as dead."""
_RETRY: Final = 2 * MS


class Line:
    """A line held by the brake.

    Args:
        name: The port or the peer's address.
        fd: The duplicate, which `close` closes.

    Attributes:
        outcome: The result of the last DEV_DISABLE: ``disabled`` if the kernel has sent it,
            ``dead``, or ``refused`` if it was not sent within the time limit; empty before.
        pending: Whether there is no result yet.
        releasing: Whether the line is to be closed when there is a result.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.outcome = ""
        self.pending = False
        self.releasing = False
        self._still_used = True
        self._is_written = False
        self._deadline = 0
        self._is_tty = stat.S_ISCHR(os.fstat(fd).st_mode)

    def disable(self, now: int, *, release: bool = False, still_used: bool = False) -> None:
        """Start writing DEV_DISABLE; `advance` does the work.

        Args:
            now: The time.
            release: Whether to close the line afterwards.
            still_used: Whether the device process lives and continues to use the line.
        """
        self.pending = True
        if release:
            self.releasing = True
            self._still_used = still_used
        self.outcome = ""
        self._is_written = False
        self._deadline = now + TIME_LIMIT

    def advance(self, now: int) -> bool:
        """Do what is possible now.

        Returns:
            False if nothing is left to do except closing a line that is `releasing`.
        """
        if self.pending:
            self.outcome = self._progress()
            if not self.outcome and now >= self._deadline:
                self.outcome = "refused"
            self.pending = not self.outcome
        return self.pending

    def due(self, now: int) -> int | None:
        """Return when to call `advance` again; None if there is nothing to do."""
        return now + _RETRY if self.pending else None

    def close(self) -> None:
        """Close the duplicate.

        If no other process uses the port, output that its driver has not sent is dropped, because
        otherwise the close would wait for it.
        """
        with contextlib.suppress(OSError, termios.error):
            if self._is_tty and not (self.releasing and self._still_used):
                self._release()
            elif self.releasing and not self._still_used:
                output_queue.end_connection(self.fd)
        os.close(self.fd)

    def _release(self) -> None:
        """Make sure that closing the port does not wait, and unlock it."""
        if output_queue.unsent(self.fd):
            # Fails if another process opened the port after the device process closed it: then the
            # output belongs to its new owner.
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            output_queue.drop(self.fd)
        if self.releasing:
            # Duplicates in the queue of an exited brake would keep the lock.
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def _progress(self) -> str:
        """Write the frame and wait for its transmission; return the result, or an empty string."""
        try:
            if not self._is_written:
                self._is_written = self._write()
            return "disabled" if self._is_written and not output_queue.unsent(self.fd) else ""
        except (OSError, termios.error):
            return "dead"

    def _write(self) -> bool:
        """Write the frame, and return False if the line does not accept it now."""
        if self._try():
            return True
        if not self._is_tty:
            return False
        output_queue.drop(self.fd)
        return self._try()

    def _try(self) -> bool:
        try:
            return os.write(self.fd, DISABLE) == len(DISABLE)
        except BlockingIOError:
            return False
