"""The pipe on which a child of our own program writes its log events, apart from stdout and stderr.

Invariant: what team code and the programs that it starts write to stdout or stderr is text and
nothing else. The child's end is close-on-exec, and its number is in the environment only until the
child has read it.
"""

import contextlib
import fcntl
import os

import trio

VARIABLE = "RT_LOG_FD"
"""The environment variable that tells a child the number of its end."""

PIPE_BYTES = 1 << 20
"""How much of a child's output may wait for its parent (bytes): a burst of a few thousand log lines."""


def open_log_pipe() -> tuple[trio.lowlevel.FdStream, int]:
    """Make a pipe: the parent's end, and the descriptor of the child's end, not inheritable, which the caller closes.

    Raises:
        OSError: There is no descriptor left.
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    enlarge(ours)
    return trio.lowlevel.FdStream(ours), theirs


def enlarge(fd: int) -> None:
    """Let a pipe hold `PIPE_BYTES`, if the system allows it."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def adopt_log_pipe() -> int | None:
    """Take over the child's end, which other programs do not inherit then; None where the parent has made none."""
    number = os.environ.pop(VARIABLE, "")
    if not number.isdecimal():
        return None
    fd = int(number)
    try:
        os.set_inheritable(fd, False)
    except OSError:
        return None
    return fd
