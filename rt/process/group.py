"""A child and the processes below it: its output, signals to its group, and the end of all of them.

Invariant: a child leads its group and its session, so its pid is the number of both. Signals go to
this number only while the child has not been reaped, because until then the kernel assigns the
number to no other process. The session is killed before the child is reaped.
"""

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterable

import trio

from rt import log
from rt.process import orphans

DRAIN_TIMEOUT = 0.5
"""How long output is read after the exit (s); another process may hold the pipes open."""

Reader = Callable[[], Awaitable[None]]
"""Reads one stream of a process until its end."""

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


async def attend(
    process: trio.Process,
    readers: Iterable[Reader],
    *,
    on_exit: Callable[[], None],
    logger: log.Logger,
) -> None:
    """Read the output of a process until it exits, and kill what remains of its session.

    The process is not reaped; the caller does that afterwards. A checkpoint. A cancel stops the
    readers and leaves the process as it is.

    Args:
        process: The leader of its session.
        readers: Run until they return, or until `DRAIN_TIMEOUT` after the exit.
        on_exit: Called as soon as the process has exited. From then on the caller may not signal
            its group.
        logger: Logs how many processes remained.

    Raises:
        ExceptionGroup: A reader failed.
        OSError: No file descriptor is available.
    """
    pidfd = os.pidfd_open(process.pid)
    try:
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader)
            await trio.lowlevel.wait_readable(pidfd)
            on_exit()
            if remaining := await kill_remaining(process.pid):
                logger.warning("killed processes that a process left behind", processes=remaining)
            nursery.cancel_scope.deadline = trio.current_time() + DRAIN_TIMEOUT
    finally:
        trio.lowlevel.notify_closing(pidfd)
        os.close(pidfd)


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
