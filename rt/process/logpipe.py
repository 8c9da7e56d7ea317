"""The pipe on which a child of rt writes its log events, apart from stdout and stderr.

Invariant: what team code and its programs write to stdout or stderr is treated as text only. The
child's end is close-on-exec, and its number is in the environment only until the child has read it.
"""

import contextlib
import fcntl
import os

import trio

VARIABLE = "RT_LOG_FD"
"""The environment variable with the number of the child's end."""

LOG = "log"
"""The name of the stream with a child's log events."""

PIPE_BYTES = 1 << 20
"""Capacity of a pipe with a child's output (bytes): a burst of a few thousand log lines."""


def open_log_pipe() -> tuple[trio.lowlevel.FdStream, int]:
    """Create a pipe.

    Returns:
        The parent's end, and the descriptor of the child's end. The latter is not inheritable, and
        the caller closes it.

    Raises:
        OSError: No file descriptor is available.
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    enlarge(ours)
    return trio.lowlevel.FdStream(ours), theirs


def enlarge(fd: int) -> None:
    """Set the capacity of a pipe to `PIPE_BYTES`, if the system permits it."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def adopt_log_pipe() -> int | None:
    """Return the child's end and make it close-on-exec; None if the parent created no pipe."""
    number = os.environ.pop(VARIABLE, "")
    if not number.isdecimal():
        return None
    fd = int(number)
    try:
        os.set_inheritable(fd, False)
    except OSError:
        return None
    return fd
