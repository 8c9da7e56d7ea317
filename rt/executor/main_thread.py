"""Runs that the event loop gives to the main thread and waits for.

Invariant: code that does not stop within `STOP_LIMIT` ends the process.
"""

import os

import trio

from rt import log
from rt.executor.sync import Run, SyncExecutor

STOP_LIMIT = 0.8
"""How long team code may take to stop when its mode ends, in s."""
EXIT_STUCK = 70
"""Exit code when team code cannot be stopped (EX_SOFTWARE of sysexits)."""


class MainThread:
    """The main thread, as the event loop uses it.

    Args:
        sync: The main thread's executor.
        token: Of the event loop.
    """

    def __init__(self, sync: SyncExecutor, token: trio.lowlevel.TrioToken) -> None:
        self.sync = sync
        self._token = token

    async def finish(self, run: Run) -> BaseException | None:
        """Execute a run in the main thread and wait for its end.

        A cancel interrupts the run and still waits for its end.

        Returns:
            The error that ended the run, or None.
        """
        over = trio.Event()
        errors: list[BaseException | None] = []

        def done(error: BaseException | None) -> None:
            errors.append(error)
            try:
                self._token.run_sync_soon(over.set)
            except trio.RunFinishedError:
                return

        run.done = done
        self.sync.schedule(run)
        try:
            await over.wait()
        except trio.Cancelled:
            self.sync.interrupt(run)
            with trio.CancelScope(deadline=trio.current_time() + STOP_LIMIT, shield=True):
                await over.wait()
            if not errors:
                exit_stuck()
            raise
        return errors[0]


def exit_stuck() -> None:
    """Exit because team code cannot be stopped; the supervisor restarts the process, idle."""
    log.get_logger().critical("team code cannot be stopped: exiting", limit=STOP_LIMIT)
    os._exit(EXIT_STUCK)
