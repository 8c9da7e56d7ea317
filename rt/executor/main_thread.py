"""Runs that the event loop gives to the main thread and waits for.

Invariant: code that does not stop within `STOP_LIMIT` ends the process.
"""

import os

import trio

from rt import log
from rt.executor.time_limit import Run, SyncExecutor

STOP_LIMIT = 0.8
"""How long team code may take to stop when its mode ends, in s."""
EXIT_STUCK = 70
"""Exit code when team code cannot be stopped (EX_SOFTWARE of sysexits)."""


async def finish(sync: SyncExecutor, run: Run) -> BaseException | None:
    """Execute a run in the main thread and wait for its end.

    A cancel interrupts the run and still waits for its end. If team code cannot be stopped, the
    process exits, and the supervisor restarts it, idle.

    Args:
        sync: The main thread's executor.
        run: The run.

    Returns:
        The error that ended the run, or None.
    """
    token = trio.lowlevel.current_trio_token()
    over = trio.Event()
    errors: list[BaseException | None] = []

    def done(error: BaseException | None) -> None:
        errors.append(error)
        try:
            token.run_sync_soon(over.set)
        except trio.RunFinishedError:
            return

    run.done = done
    sync.schedule(run)
    try:
        await over.wait()
    except trio.Cancelled:
        sync.interrupt(run)
        with trio.move_on_after(STOP_LIMIT, shield=True):
            await over.wait()
        if not errors:
            log.get_logger().critical("team code cannot be stopped: exiting", limit=STOP_LIMIT)
            os._exit(EXIT_STUCK)
        raise
    return errors[0]
