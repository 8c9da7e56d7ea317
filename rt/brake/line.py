"""The brake's duplicate of one line, and how it is written without waiting.

A duplicate shares the open file of the device process, with its lock and with O_NONBLOCK. So no
write waits, and the lock is kept until the line is closed: no other process opens the port while
DEV_DISABLE is on its way. What a serial driver has not sent within the time limit is dropped before
the duplicate is closed, since the last close of a serial port waits for its output.
"""

import contextlib
import fcntl
import os
import stat
import termios
from typing import Final

from rt.brake import output
from rt.brake.protocol import DISABLE

MS: Final = 1_000_000
TIME_LIMIT: Final = round(output.TIME_LIMIT * 1e9)
"""How long a line may refuse the frame until its device counts as dead (ns)."""
_RETRY: Final = 2 * MS


class Line:
    """A line that the brake holds.

    Args:
        name: The port or the peer's address.
        fd: The duplicate; closed by `close`.

    Attributes:
        name: As above.
        outcome: How the last DEV_DISABLE ended: ``disabled`` if the kernel has sent it, ``dead``,
            or ``refused`` if it did not within the time limit; empty before.
        pending: Whether that is still to be seen.
        finishing: Whether the line is closed as soon as it is.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.outcome = ""
        self.pending = False
        self.finishing = False
        self._is_shared = True
        self._is_written = False
        self._deadline = 0
        self._is_tty = stat.S_ISCHR(os.fstat(fd).st_mode)

    def disable(self, now: int, *, finish: bool = False, shared: bool = False) -> None:
        """Begin to write DEV_DISABLE; `work` does it.

        Args:
            now: The time.
            finish: Whether the line is closed afterwards.
            shared: Whether the device process lives and goes on to use the line then.
        """
        self.pending = True
        if finish:
            self.finishing = True
            self._is_shared = shared
        self.outcome = ""
        self._is_written = False
        self._deadline = now + TIME_LIMIT

    def work(self, now: int) -> bool:
        """Do what can be done now; False if nothing is left to do but to close a line that is `finishing`."""
        if self.pending:
            self.outcome = self._progress()
            if not self.outcome and now >= self._deadline:
                self.outcome = "refused"
            self.pending = not self.outcome
        return self.pending

    def due(self, now: int) -> int | None:
        """When `work` is to be called again; None if that changes nothing."""
        return now + _RETRY if self.pending else None

    def close(self) -> None:
        """Close the duplicate.

        What the driver of a port has not sent is dropped if no process has the port otherwise: only
        then the close would wait for it.
        """
        with contextlib.suppress(OSError, termios.error):
            if self._is_tty and not (self.finishing and self._is_shared):
                self._release()
            elif self.finishing and not self._is_shared:
                output.end_connection(self.fd)
        os.close(self.fd)

    def _release(self) -> None:
        """Make the close of the port wait for nothing, and let another process open it."""
        if output.unsent(self.fd):
            # Refused if the port was opened anew after the device process had closed it: then the
            # output is that of its new owner.
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            output.drop(self.fd)
        if self.finishing:
            # Duplicates on their way to a brake that has ended would keep it.
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def _progress(self) -> str:
        """Write the frame, and see it sent: how that ended, or an empty string before."""
        try:
            if not self._is_written:
                self._is_written = self._write()
            return "disabled" if self._is_written and not output.unsent(self.fd) else ""
        except (OSError, termios.error):
            return "dead"

    def _write(self) -> bool:
        """Write the frame; False if the line does not take it now."""
        if self._try():
            return True
        if not self._is_tty:
            return False
        output.drop(self.fd)
        return self._try()

    def _try(self) -> bool:
        try:
            return os.write(self.fd, DISABLE) == len(DISABLE)
        except BlockingIOError:
            return False
