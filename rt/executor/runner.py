"""One mode in an executor process: prepared, started by the root, run, and over.

A mode is one run of the main thread (load, setup once, main at its period) and the actions that it
starts. It ends when the root ends the process, when its requests are executed, when an error ends
it, or when no function of team code is running any more.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from rt import log
from rt.buffer import BufferStore
from rt.config import Config
from rt.config.team_code import locate
from rt.errors import ExecutionError, RemoteProtocolError, RuntimeBaseException
from rt.executor import messages
from rt.executor.actions import AsyncExecutor
from rt.executor.api import Actions, Field, Gamepad, Robot, RunState, refuse_input
from rt.executor.lease import STOPPED, LeaseKeeper
from rt.executor.main_thread import finish
from rt.executor.output import TeamOutput
from rt.executor.program import prepare
from rt.executor.report import Reporter
from rt.executor.stall_trace import StallWatch
from rt.executor.time_limit import ExecutionRequest, Run, SyncExecutor
from rt.protocol import exception, structs
from rt.team.api import Alliance, Mode


class ModeRunner:
    """Runs one mode.

    Args:
        sync: The main thread's executor.
        actions: The event loop's executor.
        keeper: The keeper of the lease.
        store: The buffers.
        device_names: UIDs by device name.
        config: The options: where the team code is, and its time limits.
        directory: Where the team code is looked for, whatever the working directory has become.
        reporter: Logs the errors of team code.
        is_outdated: Returns whether rt.toml changed after the robot started.

    Attributes:
        names: The names that team code finds without importing them.
        output: Logs what team code prints.
        stall: The watchdog of the event loop, active from the load of team code; must be run.
    """

    def __init__(
        self,
        *,
        sync: SyncExecutor,
        actions: AsyncExecutor,
        keeper: LeaseKeeper,
        store: BufferStore,
        device_names: Mapping[str, int],
        config: Config,
        directory: Path,
        reporter: Reporter,
        is_outdated: Callable[[], bool] = lambda: False,
    ) -> None:
        self._sync = sync
        self._actions = actions
        self._token = trio.lowlevel.current_trio_token()
        self._keeper = keeper
        keeper.on_end = self._request_end
        actions.on_error = keeper.restart
        threading.excepthook = self._thread_failed
        self._state = RunState()
        self._reporter = reporter
        self._config = config
        self._directory = directory
        self._end_requested = trio.Event()
        self.stall = StallWatch()
        self._reason = ""
        self.output = TeamOutput(self._state)
        self.names: Mapping[str, Any] = {
            "Robot": Robot(store, device_names, is_outdated),
            "Gamepad": Gamepad(store, self._state),
            "Actions": Actions(actions),
            "Field": Field(self._state),
            "Alliance": Alliance,
            "print": self.output.print,
            "input": refuse_input,
        }
        self._log = log.get_logger()

    async def run(self, channel: trio.socket.SocketType) -> None:
        """Run the mode that the root requests, until it is over or the root has exited.

        A cancel interrupts team code and waits for it, as `rt.executor.main_thread.finish` does.

        Args:
            channel: The channel to the root.
        """
        command = await self._receive(channel)
        if not isinstance(command, messages.Prepare):
            return
        self.stall.begin()
        try:
            path = locate(self._config.exec_module, self._directory)
            self._reporter.path = path
            self._sync.folder = str(path.parent)
            requests = await prepare(
                command, path, sync=self._sync, names=self.names, time_limit=self._config.time_limit
            )
        except RuntimeBaseException as error:
            await channel.send(
                messages.encode(messages.Refused(exception.message(error), error.context))
            )
            return
        await channel.send(messages.encode(messages.Loaded(str(path))))
        if not isinstance(await self._receive(channel), messages.Go):
            return
        await self._execute(channel, requests, command)

    async def _receive(self, channel: trio.socket.SocketType) -> messages.Command | None:
        data = await channel.recv(messages.MAX_MESSAGE)
        if not data:
            return None
        try:
            command: messages.Command = structs.decode(data, messages.Command)
        except RemoteProtocolError as error:
            self._log.error("invalid command from the root", reason=str(error))
            return None
        return command

    async def _execute(
        self,
        channel: trio.socket.SocketType,
        requests: list[ExecutionRequest],
        command: messages.Prepare,
    ) -> None:
        """Run the mode, and report its end to the root before waiting for late code."""
        self._state.begin(Mode(command.mode), gamepads=command.gamepads)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._keeper.run)
                await nursery.start(self._actions.run)
                nursery.start_soon(self._report_end, channel, nursery.cancel_scope)
                run = Run(requests, self._keeper, hold=command.partial)
                error = await finish(self._sync, run)
                is_finished = command.partial and error is None
                if is_finished:
                    await self._actions.wait_all_ended()
                    error = ExecutionError("all functions of team code have ended")
                await channel.send(messages.encode(_result(error)))
                if is_finished:
                    await self._keeper.wait_revoked()
                nursery.cancel_scope.cancel()
        finally:
            self._keeper.close()
            self._state.gamepads = False
            self._reporter.flush()
            self.output.finish()

    async def _report_end(self, channel: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        await self._end_requested.wait()
        await channel.send(messages.encode(messages.Over(self._reason)))
        scope.cancel(self._reason)

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """Report that a thread of team code failed or exited, and stop what team code moves."""
        self._keeper.restart()
        error = failure.exc_value or failure.exc_type()
        self._reporter.report(
            error, "a thread" if failure.thread is None else f"thread {failure.thread.name}"
        )

    def _request_end(self, reason: str) -> None:
        """End the mode because of what its commander did. Thread-safe."""
        self._reason = reason
        write = self._log.info if reason == STOPPED else self._log.error
        write(reason, mode=self._state.mode.name.lower())
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._end_requested.set)


def _result(error: BaseException | None) -> messages.Over:
    if error is None:
        return messages.Over()
    context: dict[str, Any] = error.context if isinstance(error, RuntimeBaseException) else {}
    return messages.Over(exception.message(error) or type(error).__name__, context)
