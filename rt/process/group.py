"""Signals to a child's process group, and the end of all processes below a child.

Invariant: a child leads its group and its session, so its pid is the number of both. Signals go to
this number only while the child has not been reaped, because until then the kernel assigns the
number to no other process.
"""

import contextlib
import os
import signal

import trio

from rt import log
from rt.process import orphans

_KILL_TIMEOUT = 0.3


def signal_group(leader: int, signum: signal.Signals) -> None:
    """Send a signal to the process group of ``leader``, if the group still exists.

    SIGCONT follows, so that a stopped process handles the signal; not after SIGKILL and SIGSTOP.
    """
    # EPERM: only programs that run as another user remain in the group.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signum)
        if signum not in (signal.SIGKILL, signal.SIGSTOP):
            os.killpg(leader, signal.SIGCONT)


async def kill_remaining(leader: int) -> int:
    """Kill the group and the session of a process that has exited and is not reaped, and orphans.

    Killing the group needs no file descriptor. If none is available, the rest of the session is not
    killed, and a warning is logged. Yields to the event loop regularly. A cancel leaves the
    remaining processes alive.

    Returns:
        How many processes were killed, without those of the group.
    """
    signal_group(leader, signal.SIGKILL)
    try:
        return await orphans.kill(leader)
    except OSError as error:
        reason = error.strerror or str(error)
        log.get_logger().warning(
            "cannot find the processes that a process left behind", leader=leader, reason=reason
        )
        return 0


async def kill_tree(process: trio.Process) -> None:
    """Kill a process with its group and session, and reap it.

    Does nothing if the process was reaped before. Shielded from cancels, and bounded by a timeout.
    """
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)  # noqa: ASYNC222
    except ChildProcessError:  # reaped, and its session killed before that
        return
    with trio.move_on_after(_KILL_TIMEOUT, shield=True):
        await kill_remaining(process.pid)
        await process.wait()
