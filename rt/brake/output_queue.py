"""The output queue of a line: bytes that the kernel has accepted but not sent.

Both the device process and the brake write to a line.

Invariant: neither drops the queue while DEV_DISABLE may be in it, unless it writes DEV_DISABLE
again immediately or the line has refused it for `TIME_LIMIT`.
"""

import contextlib
import fcntl
import os
import socket
import stat
import termios
from typing import Final

TIME_LIMIT: Final = 1.0
"""Time (s) for which a line may refuse DEV_DISABLE until its device counts as dead."""
_SIOCOUTQNSD: Final = 0x894B
"""From linux/sockios.h: bytes not sent yet; sent but unacknowledged bytes are not counted."""
_DRAIN_BYTES: Final = 1 << 16
_DRAIN_READS: Final = 16


def unsent(fd: int) -> int:
    """Return the bytes that a serial driver or the kernel's end of a TCP connection has not sent.

    Always 0 for a pseudo-terminal and for sockets other than TCP.

    Raises:
        OSError: The port is gone.
    """
    is_tty = stat.S_ISCHR(os.fstat(fd).st_mode)
    try:
        return int.from_bytes(
            fcntl.ioctl(fd, termios.TIOCOUTQ if is_tty else _SIOCOUTQNSD, b"\0\0\0\0"), "little"
        )
    except OSError:
        if is_tty:
            raise
        return 0


def drop(fd: int) -> None:
    """Drop the bytes that the driver of a serial port has not sent.

    Raises:
        termios.error: The port is gone.
    """
    termios.tcflush(fd, termios.TCOFLUSH)


def end_connection(fd: int) -> None:
    """Shut down the output of a TCP connection, so that closing does not drop it.

    A close with unread input would reset the connection, so input is read first.

    Raises:
        OSError: The peer is gone.
    """
    with socket.socket(fileno=os.dup(fd)) as connection:
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(BlockingIOError):
            for _ in range(_DRAIN_READS):
                if not connection.recv(_DRAIN_BYTES, socket.MSG_DONTWAIT):
                    break
