"""The executor process: the team's code in the main thread, the event loop in a second one.

Signals reach the main thread, which is why the team's functions run there: an interval timer can interrupt them. The kernel kills
the whole group of this process when the root dies, whatever the team's code is doing.
"""

import contextlib
import signal
import threading
from pathlib import Path

import trio

from rt.app import Application, ChildSettings
from rt.buffer.bells import EXECUTOR_SEAT
from rt.executor.actions import AsyncExecutor
from rt.executor.api import Field, Gamepad, Robot
from rt.executor.dispatcher import Dispatcher
from rt.executor.lease import LeaseKeeper
from rt.executor.report import Reporter
from rt.executor.sync import SyncExecutor
from rt.supervisor import notify
from rt.supervisor.ending import exit_code
from rt.supervisor.lifeline import Lifeline

LOCK_TIMEOUT = 0.01
"""How long the team's code waits for a buffer's lock (s)."""


class ExecutorProcess:
    """Both threads, from start to end.

    Args:
        settings: What the root gave on the lifeline.
        lifeline: The child's end of it.
    """

    def __init__(self, settings: ChildSettings, lifeline: Lifeline) -> None:
        self._settings = settings
        self._lifeline = lifeline
        self._directory = Path.cwd()
        self._reporter = Reporter()
        self._sync = SyncExecutor(self._reporter.report, str(self._directory))
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._exit_code = 0
        self._stopping = False

    def run(self) -> int:
        """Run until the root lets go or asks to stop; the exit code."""
        self._lifeline.kill_group_at_eof()
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        loop = threading.Thread(target=self._run_loop, name="event loop", daemon=True)
        loop.start()
        self._sync.execute_forever()
        loop.join()
        return self._exit_code

    def _stop(self) -> None:
        self._stopping = True
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)

    def _run_loop(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 - the end of a thread: nobody else would hear of it
            # Said at once: the main thread may be in the team's code for long.
            self._exit_code = exit_code(error, "the executor process failed")
        finally:
            self._sync.stop()

    async def _serve(self) -> None:
        self._token = token = trio.lowlevel.current_trio_token()
        if self._stopping:  # asked to before there was a token
            return
        with self._scope:
            async with Application.of_child(self._settings) as app:
                assert app.doorbell is not None
                store = app.make_buffer_manager(lock_timeout=LOCK_TIMEOUT)
                actions = AsyncExecutor(token, self._reporter.report)
                dispatcher = Dispatcher(
                    reporter=self._reporter,
                    sync=self._sync,
                    actions=actions,
                    keeper=LeaseKeeper(app.make_lease_table().slot(EXECUTOR_SEAT), app.doorbell),
                    token=token,
                    robot=Robot(store, app.names),
                    gamepad=Gamepad(store),
                    field=Field(),
                    time_limit=app.config.time_limit,
                    exec_module=app.config.exec_module,
                    directory=self._directory,
                )
                dispatcher.output.take_over()
                await app.nursery.start(dispatcher.run)
                await app.make_service(dispatcher)
                app.report_health()
                notify.send(ready=True, status="idle")
                period = notify.watchdog_period() or 1.0
                while not self._lifeline.is_closed():
                    notify.send(watchdog=True)
                    with trio.move_on_after(period):
                        await self._lifeline.closed()


def main(settings: ChildSettings, lifeline: Lifeline) -> int:
    """Be the executor process."""
    return ExecutorProcess(settings, lifeline).run()
