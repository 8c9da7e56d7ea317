"""The main thread as the event loop sees it: runs are given to it and waited for.

Code that does not let itself be ended within ``STOP_LIMIT`` takes the process with it.
"""

import os

import trio

from rt import log
from rt.executor.sync import Run, SyncExecutor

STOP_LIMIT = 0.8
"""How long the team's code may take to end when its mode ends (s)."""
EXIT_STUCK = 70
"""Exit code when the team's code cannot be stopped (sysexits EX_SOFTWARE)."""


class MainThread:
    """Lets the main thread execute runs.

    Args:
        sync: The main thread's executor.
        token: Of the event loop.
    """

    def __init__(self, sync: SyncExecutor, token: trio.lowlevel.TrioToken) -> None:
        self.sync = sync
        self._token = token

    async def finish(self, run: Run) -> BaseException | None:
        """Let the main thread execute a run and wait for its end; a cancel interrupts it and still waits."""
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
    """End the process, whose code of the team cannot be stopped; the supervisor starts it again, idle."""
    log.get_logger().critical(
        "the team's code cannot be stopped: its process ends", limit=STOP_LIMIT
    )
    os._exit(EXIT_STUCK)
