"""The processes behind a child: its group, everything else of its session, and orphans (`rt.process.orphans`).

A child is started as leader of a session, so its pid is also the number of its group and of its
session. The rule of this module: signals go to these numbers only while the leader has not been
reaped, since until then the kernel gives them to nobody else.
"""

import contextlib
import os
import signal

from rt import log
from rt.process import orphans


def signal_group(leader: int, signum: signal.Signals) -> None:
    """Send a signal to the whole group of ``leader``; a group that is gone is no error.

    After a polite signal the group is also told to continue: a stopped process would not hear it.
    """
    # EPERM: all that is left of the group are programs that run as somebody else.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signum)
        if signum not in (signal.SIGKILL, signal.SIGSTOP):
            os.killpg(leader, signal.SIGCONT)


async def kill_remaining(leader: int) -> int:
    """Kill what is left of the group and the session of a process that has exited but has not been reaped, and its orphans.

    The group needs no descriptor of ours. Where none is left, the rest of the session is not found,
    and the log says so. A checkpoint after every few dozen processes of the system. A cancel leaves
    the rest of them unswept.

    Returns:
        How many processes were killed besides those that ended with the group at once.
    """
    signal_group(leader, signal.SIGKILL)
    try:
        return await orphans.kill(leader)
    except OSError as error:
        reason = error.strerror or str(error)
        log.get_logger().warning(
            "cannot look for what a process has left behind", leader=leader, reason=reason
        )
        return 0
