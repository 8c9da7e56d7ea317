"""The processes behind a child: its group, everything else of its session, and orphans (`rt.supervisor.orphans`).

A child is started as leader of a session, so its pid is also the number of its group and of its session. The rule of this
module: signals go to these numbers only while the leader has not been reaped, since until then the kernel gives them to
nobody else.
"""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator

import trio

from rt import log
from rt.supervisor import orphans

SWEEP_TIMEOUT = 1.0
"""How long a killed straggler may take to be gone, in seconds."""

_ROUNDS = 5
"""A straggler that forks while it is being killed is caught in one of the next rounds."""


def signal_group(leader: int, signum: signal.Signals) -> None:
    """Send a signal to the whole group of ``leader``; a group that is gone is no error.

    After a polite signal the group is also told to continue: a stopped process would not hear it.
    """
    # EPERM: all that is left of the group are programs that run as somebody else.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signum)
        if signum not in (signal.SIGKILL, signal.SIGSTOP):
            os.killpg(leader, signal.SIGCONT)


def session_of(pid: int) -> int | None:
    """The session of a process that lives, or None; format of ``/proc/PID/stat`` from proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - read hundreds of times in a row
            # The name of the program stands in brackets and may itself contain some.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[3])


def members(session: int) -> Iterator[int | None]:
    """The living processes of a session, among Nones: one value for each process of the system."""
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed
        if entry.isdecimal():
            pid = int(entry)
            yield pid if session_of(pid) == session else None


async def sweep(leader: int) -> int:
    """Kill what is left of the group and the session of a process that has exited but has not been reaped, and all orphans.

    The group needs no descriptor of ours. Where none is left, the rest of the session is not found, and the log says so: nobody's
    end is a reason for ours. A checkpoint after every few dozen processes of the system. A cancel leaves the rest of them unswept.

    Returns:
        How many processes outside of the group were killed.
    """
    killed = 0
    signal_group(leader, signal.SIGKILL)
    try:
        for _ in range(_ROUNDS):
            found: list[int] = []
            for index, pid in enumerate(members(leader)):
                if pid is not None and pid != leader:
                    found.append(pid)
                if index % 32 == 31:
                    await trio.lowlevel.checkpoint()
            if not found:
                break
            killed += await _kill(found, leader)
        killed += await orphans.kill()
    except OSError as error:
        reason = error.strerror or str(error)
        log.get_logger().warning("cannot look for what a process has left behind", leader=leader, reason=reason)
    return killed


async def _kill(pids: Iterable[int], session: int) -> int:
    with contextlib.ExitStack() as stack:
        fds: list[int] = []
        for pid in pids:
            # A process that ends meanwhile is what we want.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                fd = os.pidfd_open(pid)
                stack.callback(os.close, fd)
                # The descriptor is of this very process; only now is it certain that the number was not given to another.
                if session_of(pid) == session:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    fds.append(fd)
        with trio.move_on_after(SWEEP_TIMEOUT):
            for fd in fds:
                await trio.lowlevel.wait_readable(fd)
        return len(fds)
