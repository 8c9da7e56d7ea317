"""The brake's duplicate of one line, and how it is written without waiting.

A duplicate shares the open file of the device process, with its lock and with O_NONBLOCK. So it is unlocked before it is closed, and
no write waits. What a serial driver has not sent within the time limit is dropped before the duplicate is closed, since the last
close of a serial port waits for its output.
"""

import contextlib
import fcntl
import os
import socket
import stat
import termios
from typing import Final

from rt.brake.protocol import DISABLE

MS: Final = 1_000_000
TIME_LIMIT: Final = 1000 * MS
"""How long a line may refuse the frame until its device counts as unreachable (ns)."""
_RETRY: Final = 2 * MS
_DRAIN_BYTES: Final = 1 << 16


class Line:
    """A line that the brake holds.

    Args:
        name: The port or the peer's address.
        fd: The duplicate; closed by `close`.

    Attributes:
        name: As above.
        outcome: How the last write of DEV_DISABLE ended: ``disabled``, ``dead`` or ``refused``; empty before.
        pending: Whether DEV_DISABLE is still to be written.
        finishing: Whether the line is closed as soon as it has taken everything.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.outcome = ""
        self.pending = False
        self.finishing = False
        self._deadline = 0
        self._is_tty = stat.S_ISCHR(os.fstat(fd).st_mode)

    def disable(self, now: int, *, finish: bool = False) -> None:
        """Begin to write DEV_DISABLE; `work` does it."""
        self.pending = True
        self.finishing = self.finishing or finish
        self.outcome = ""
        self._deadline = now + TIME_LIMIT
        if finish and self._is_tty:
            with contextlib.suppress(OSError):
                fcntl.flock(self.fd, fcntl.LOCK_UN)  # the next device process opens the port again

    def work(self, now: int) -> bool:
        """Do what can be done now; False if nothing is left to do but to close a line that is `finishing`."""
        if self.pending:
            self.outcome = self._write()
            if not self.outcome and now >= self._deadline:
                self.outcome = "refused"
            self.pending = not self.outcome
            return True
        return self.finishing and now < self._deadline and self.outcome == "disabled" and self._unsent() > 0

    def due(self, now: int) -> int | None:
        """When `work` is to be called again; None if that changes nothing."""
        return now + _RETRY if self.pending or self.finishing else None

    def close(self) -> None:
        """Close the duplicate, with what its device has not taken."""
        with contextlib.suppress(OSError):
            if self._is_tty:
                if self._unsent():
                    termios.tcflush(self.fd, termios.TCOFLUSH)
            elif self.finishing:
                self._end_connection()
        os.close(self.fd)

    def _write(self) -> str:
        """Write the frame: how that ended, or an empty string if the line does not take it now."""
        try:
            for flush in (True, False):
                if self._try():
                    return "disabled"
                if flush and self._is_tty:
                    termios.tcflush(self.fd, termios.TCOFLUSH)
        except (OSError, termios.error):
            return "dead"
        return ""

    def _try(self) -> bool:
        try:
            return os.write(self.fd, DISABLE) == len(DISABLE)
        except BlockingIOError:
            return False

    def _unsent(self) -> int:
        """Bytes that the driver has taken and not yet sent."""
        if not self._is_tty:
            return 0
        try:
            return int.from_bytes(fcntl.ioctl(self.fd, termios.TIOCOUTQ, b"\0\0\0\0"), "little")
        except OSError:
            return 0

    def _end_connection(self) -> None:
        """End a TCP connection so that the peer reads the frame: a close with unread input would reset it."""
        with socket.socket(fileno=os.dup(self.fd)) as connection:
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(BlockingIOError):
                for _ in range(16):
                    if not connection.recv(_DRAIN_BYTES, socket.MSG_DONTWAIT):
                        break
