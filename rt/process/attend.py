"""The parent's task for a running process: its output, its exit and the rest of its session.

Invariant: the session of the process is killed before the process is reaped, because until then the
kernel assigns its pid, which is also the number of its group and session, to no other process.
"""

import os
from collections.abc import Awaitable, Callable, Iterable

import trio

from rt import log
from rt.process import group

DRAIN_TIMEOUT = 0.5
"""How long output is read after the exit (s); another process may hold the pipes open."""

Reader = Callable[[], Awaitable[None]]
"""Reads one stream of a process until its end."""


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
            if remaining := await group.kill_remaining(process.pid):
                logger.warning("killed processes that a process left behind", processes=remaining)
            nursery.cancel_scope.deadline = trio.current_time() + DRAIN_TIMEOUT
    finally:
        trio.lowlevel.notify_closing(pidfd)
        os.close(pidfd)
