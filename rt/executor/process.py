"""The executor process: team code in the main thread, the event loop in a second one.

A process is started before it is needed, runs one mode, and ends with it. So nothing that team code
leaves behind (threads, replaced functions, forks, open files) reaches the next mode.

Signals reach the main thread. Team code runs there so that an interval timer can interrupt it. The
kernel kills the whole process group when the root dies, whatever team code is doing.
"""

import contextlib
import os
import signal
import threading
from pathlib import Path

import trio

from rt.app import Application, ChildSettings
from rt.config.load import FILE_NAME
from rt.config.team_code import removed_directory
from rt.errors import ConfigError, ExecutionError
from rt.executor.actions import AsyncExecutor
from rt.executor.lease import LeaseKeeper
from rt.executor.main_thread import STOP_LIMIT
from rt.executor.report import Reporter
from rt.executor.runner import ModeRunner
from rt.executor.time_limit import SyncExecutor
from rt.process import notify
from rt.process.exit_status import exit_code
from rt.process.lifeline import Lifeline

LOCK_TIMEOUT = 0.01
"""How long team code waits for a buffer's lock, in s."""


class ExecutorProcess:
    """Both threads of the process.

    Args:
        settings: The settings that the root sent on the lifeline.
        lifeline: The child's end of it.
        channel: The file descriptor of the channel (`rt.executor.messages`).
    """

    def __init__(self, settings: ChildSettings, lifeline: Lifeline, channel: int) -> None:
        self._channel = channel
        self._settings = settings
        self._lifeline = lifeline
        removed = removed_directory()
        if removed is not None:
            raise ExecutionError(removed)
        self._directory = Path.cwd()
        self._reporter = Reporter()
        self._sync = SyncExecutor(self._reporter.report, str(self._directory))
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._exit_code = 0
        self._stopping = False
        self._ended = threading.Event()

    def run(self) -> int:
        """Run until the root stops the process or dies; return the exit code."""
        self._lifeline.kill_group_at_eof()
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        loop = threading.Thread(target=self._run_loop, name="event loop", daemon=True)
        loop.start()
        self._sync.execute_forever()
        self._ended.set()
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
        except BaseException as error:  # noqa: BLE001 - nothing else would report it: a thread ends
            # Log it now: the main thread may run team code for long.
            self._exit_code = exit_code(error, "the executor process failed")
            self._sync.stop()
            self._sync.interrupt_current()
            if not self._ended.wait(STOP_LIMIT):
                os._exit(self._exit_code)  # without an event loop nothing else ends team code
        finally:
            self._sync.stop()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        if self._stopping:  # SIGTERM came before there was a token
            return
        with self._scope:
            async with Application.for_child(self._settings) as app:
                assert app.write_event is not None
                runner = ModeRunner(
                    reporter=self._reporter,
                    is_outdated=self._is_outdated,
                    sync=self._sync,
                    actions=AsyncExecutor(self._reporter.report),
                    keeper=LeaseKeeper(
                        app.make_lease_table().lease(self._settings.slot),
                        app.write_event,
                        cutoffs=app.config.exec_cutoffs,
                    ),
                    store=app.make_buffer_manager(lock_timeout=LOCK_TIMEOUT),
                    device_names=app.names,
                    config=app.config,
                    directory=self._directory,
                )
                runner.output.install()
                app.nursery.start_soon(self._send_heartbeats)
                app.nursery.start_soon(runner.stall.run)
                app.report_health()
                notify.send(ready=True, status="idle")
                with trio.socket.socket(fileno=self._channel) as channel:
                    await runner.run(channel)
                # The root ends the process, so that its end is a planned one.
                await trio.sleep_forever()

    def _is_outdated(self) -> bool:
        from rt.instance import Instance  # imported only if a device name is unknown

        try:
            holder = Instance(
                self._settings.config.instance, Path(self._settings.directory)
            ).holder()
        except ConfigError:  # the directory has been replaced
            return False
        return holder is not None and holder.options_changed_since_start(FILE_NAME)

    async def _send_heartbeats(self) -> None:
        """Send watchdog heartbeats to the supervisor until the lifeline closes; then stop."""
        period = notify.watchdog_period() or 1.0
        while not self._lifeline.is_closed():
            notify.send(watchdog=True)
            with trio.move_on_after(period):
                await self._lifeline.closed()
        self._scope.cancel("the root has exited")


def main(settings: ChildSettings, lifeline: Lifeline, channel: int) -> int:
    """Run the executor process; return the exit code."""
    return ExecutorProcess(settings, lifeline, channel).run()
