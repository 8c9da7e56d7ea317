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
from rt.errors import ExecutionError, RemoteProtocolError, RuntimeBaseException
from rt.executor import commands
from rt.executor.actions import AsyncExecutor
from rt.executor.api import Actions, Field, Gamepad, Robot, RunState, refuse_input
from rt.executor.lease import STOPPED, LeaseKeeper
from rt.executor.main_thread import MainThread
from rt.executor.output import TeamOutput
from rt.executor.program import Program
from rt.executor.report import Reporter
from rt.executor.stall import StallWatch
from rt.executor.sync import ExecutionRequest, Run, SyncExecutor
from rt.protocol import exception
from rt.team.api import Alliance, Mode


class ModeRunner:
    """Runs one mode.

    Args:
        sync: The main thread's executor.
        actions: The event loop's executor.
        make_keeper: Creates the keeper of the lease, given the function to call when the mode must
            end.
        token: Of the event loop.
        store: The buffers.
        device_names: UIDs by device name.
        time_limit: Returns the time limit or period of a function in s, or None.
        exec_module: The option: a module's name or a path.
        directory: Where the team code is looked for.
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
        make_keeper: Callable[[Callable[[str], None]], LeaseKeeper],
        token: trio.lowlevel.TrioToken,
        store: BufferStore,
        device_names: Mapping[str, int],
        time_limit: Callable[[str], float | None],
        exec_module: str,
        directory: Path,
        reporter: Reporter,
        is_outdated: Callable[[], bool] = lambda: False,
    ) -> None:
        self._main_thread = MainThread(sync, token)
        self._actions = actions
        self._token = token
        self._keeper = make_keeper(self._request_end)
        actions.on_error = self._keeper.restart
        threading.excepthook = self._thread_failed
        self._state = RunState()
        self._reporter = reporter
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
        self._program = Program(
            main_thread=self._main_thread,
            reporter=reporter,
            names=self.names,
            time_limit=time_limit,
            exec_module=exec_module,
            directory=directory,
        )
        self._log = log.get_logger()

    async def run(self, channel: trio.socket.SocketType) -> None:
        """Run the mode that the root requests, until it is over or the root has exited.

        A cancel interrupts team code and waits for it, as `MainThread.finish` does.

        Args:
            channel: The channel to the root.
        """
        command = await self._receive(channel)
        if not isinstance(command, commands.Prepare):
            return
        self.stall.begin()
        try:
            requests = await self._program.prepare(command.requests, partial=command.partial)
        except RuntimeBaseException as error:
            await channel.send(
                commands.encode(commands.Refused(exception.message(error), error.context))
            )
            return
        await channel.send(commands.encode(commands.Loaded(str(self._program.path))))
        if not isinstance(await self._receive(channel), commands.Go):
            return
        await self._execute(channel, Mode(command.mode), requests, command)

    async def _receive(
        self, channel: trio.socket.SocketType
    ) -> commands.Prepare | commands.Go | None:
        data = await channel.recv(commands.MAX_MESSAGE)
        try:
            return commands.decode_command(data) if data else None
        except RemoteProtocolError as error:
            self._log.error("invalid command from the root", reason=str(error))
            return None

    async def _execute(
        self,
        channel: trio.socket.SocketType,
        mode: Mode,
        requests: list[ExecutionRequest],
        command: commands.Prepare,
    ) -> None:
        """Run the mode, and report its end to the root before waiting for late code."""
        self._state.begin(mode, gamepads=command.gamepads)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._keeper.run)
                await nursery.start(self._actions.run)
                nursery.start_soon(self._report_end, channel, nursery.cancel_scope)
                error = await self._main_thread.finish(
                    Run(requests, self._keeper, hold=command.partial)
                )
                is_finished = command.partial and error is None
                if is_finished:
                    await self._actions.wait_all_ended()
                    error = ExecutionError("all functions of team code have ended")
                await channel.send(commands.encode(_result(error)))
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
        await channel.send(commands.encode(commands.Over(self._reason)))
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


def _result(error: BaseException | None) -> commands.Over:
    if error is None:
        return commands.Over()
    context: dict[str, Any] = error.context if isinstance(error, RuntimeBaseException) else {}
    return commands.Over(exception.message(error) or type(error).__name__, context)
