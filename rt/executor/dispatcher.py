"""The executor's service: which mode the team's code is in, and how it gets from one to the next.

A mode is one run of the main thread (load, setup once, main at its period) and the actions that it starts. A new mode begins
when the last one has ended; code that does not let itself be ended within ``STOP_LIMIT`` takes the process with it, and the
supervisor starts it again, idle.
"""

import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from rt import log
from rt.errors import EmergencyStopException, ExecutionError
from rt.executor.actions import AsyncExecutor
from rt.executor.api import Actions, Alliance, Field, Gamepad, Mode, Robot, refuse_input
from rt.executor.lease import LeaseKeeper
from rt.executor.main_thread import STOP_LIMIT, MainThread, give_up
from rt.executor.output import TeamOutput
from rt.executor.program import EXECUTE_BOUNDS, Program, Requests, RequestSpec
from rt.executor.report import Reporter
from rt.executor.sync import ExecutionRequest, Run, SyncExecutor
from rt.remote import Handler, route

ANSWER_TIME = 0.1
"""How long after an emergency stop the process lives on, so that the caller hears of it (s); devices are disabled before."""


class _Outcome:
    """How a mode went: set when it is over, with the error that ended it or None."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.error: BaseException | None = None


class Dispatcher(Handler):
    """Starts and ends modes.

    Args:
        sync: The main thread's executor.
        actions: The event loop's executor.
        keeper: The lease on the devices.
        token: Of the event loop.
        robot, gamepad, field: What the team's code finds.
        time_limit: The time limit or period of a function by its name (s), or None.
        exec_module: Where the team's code is.
        directory: Where it is looked for.
        reporter: Says what the team's code raises.

    Attributes:
        output: Says what the team's code prints.
    """

    def __init__(
        self,
        *,
        sync: SyncExecutor,
        actions: AsyncExecutor,
        keeper: LeaseKeeper,
        token: trio.lowlevel.TrioToken,
        robot: Robot,
        gamepad: Gamepad,
        field: Field,
        time_limit: Callable[[str], float | None],
        exec_module: str,
        directory: Path,
        reporter: Reporter,
    ) -> None:
        self._main_thread = MainThread(sync, token)
        self._actions = actions
        self._keeper = keeper
        self._gamepad = gamepad
        self._field = field
        self._reporter = reporter
        self.output = TeamOutput(field)
        names = {
            "Robot": robot,
            "Gamepad": gamepad,
            "Actions": Actions(actions),
            "Field": field,
            "Alliance": Alliance,
            "print": self.output.print,
            "input": refuse_input,
        }
        self._program = Program(
            main_thread=self._main_thread,
            reporter=reporter,
            names=names,
            time_limit=time_limit,
            exec_module=exec_module,
            directory=directory,
        )
        self._changing = trio.Lock()
        self._begins: set[trio.CancelScope] = set()
        self._nursery: trio.Nursery | None = None
        self._mode_scope: trio.CancelScope | None = None
        self._outcome = _Outcome()
        self._run: Run | None = None
        self._log = log.get_logger()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the modes until cancelled; then the one that runs is ended."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._keeper.withdraw()

    @route(starts=True)
    async def auto(self) -> None:
        """Begin autonomous: autonomous_setup once, then autonomous_main at its period; gamepads read neutral."""
        await self._begin_standard(Mode.AUTO, "autonomous", enable_gamepads=False)

    @route(starts=True)
    async def teleop(self) -> None:
        """Begin teleop: teleop_setup once, then teleop_main at its period."""
        await self._begin_standard(Mode.TELEOP, "teleop", enable_gamepads=True)

    @route(urgent=True)
    async def idle(self) -> None:
        """End what runs, and what is about to; every device is disabled."""
        if self._run is not None:
            self._run.stopped.set()  # first: whoever grants the lease looks at it afterwards
        self._keeper.withdraw()
        for scope in self._begins:
            scope.cancel()
        async with self._changing:
            await self._end()

    @route(inline=True, urgent=True)
    def estop(self) -> None:
        """Emergency stop: every device is disabled and the robot stops running."""
        self._keeper.close()
        timer = threading.Timer(ANSWER_TIME, lambda: os._exit(EmergencyStopException.EXIT_CODE))
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no thread can be started: nobody is answered
            os._exit(EmergencyStopException.EXIT_CODE)
        self._log.critical("emergency stop")

    @route(inline=True)
    def mode(self) -> str:
        """The mode that the robot is in: idle, auto or teleop."""
        return self._field.mode.name.lower()

    @route(starts=True, limit=math.inf, bounds=EXECUTE_BOUNDS)
    async def execute(self, requests: Requests, block: bool = False, enable_gamepads: bool = True) -> None:
        """Execute functions of the team's code in order; when all have been executed, the robot is idle.

        Args:
            requests: What to execute: func (a name), args, timeout (s), periodic.
            block: Whether to answer only when all have been executed.
            enable_gamepads: Whether gamepads can be read.

        Raises:
            ExecutionError: The code cannot be loaded or has not what is asked for, or a request that is not the last one is
                periodic; with ``block`` also when a function failed.
        """
        mode = Mode.TELEOP if enable_gamepads else Mode.AUTO
        outcome = await self._begin(mode, requests, enable_gamepads=enable_gamepads, stays=False)
        if block:
            await outcome.over.wait()
            if isinstance(outcome.error, ExecutionError):
                raise outcome.error

    async def _begin_standard(self, mode: Mode, prefix: str, *, enable_gamepads: bool) -> None:
        specs = [RequestSpec(f"{prefix}_setup"), RequestSpec(f"{prefix}_main", periodic=True)]
        try:
            await self._begin(mode, specs, enable_gamepads=enable_gamepads, stays=True)
        except ExecutionError as error:
            self._log.error(error.message, mode=mode.name.lower())
            raise

    async def _begin(self, mode: Mode, specs: Sequence[RequestSpec], *, enable_gamepads: bool, stays: bool) -> _Outcome:
        with trio.CancelScope() as scope:
            self._begins.add(scope)
            try:
                async with self._changing:
                    await self._end()
                    assert self._nursery is not None
                    requests = await self._program.prepare(specs, partial=stays)
                    self._gamepad.enabled = enable_gamepads
                    self._field.begin(mode)
                    outcome = self._outcome = _Outcome()
                    self._log.info("mode began", mode=mode.name.lower(), code=str(self._program.path))
                    await self._nursery.start(self._mode, requests, stays, outcome)
                    return outcome
            finally:
                self._begins.discard(scope)
        raise ExecutionError(f"{mode.name.lower()} has not begun: the robot was told to be idle")

    async def _end(self) -> None:
        """End the mode that runs; an action that does not let itself be ended takes the process with it."""
        if self._mode_scope is None:
            return
        self._mode_scope.cancel()
        with trio.CancelScope(deadline=trio.current_time() + STOP_LIMIT + 0.5, shield=True):
            await self._outcome.over.wait()
        if not self._outcome.over.is_set():
            give_up()

    async def _mode(
        self,
        requests: Sequence[ExecutionRequest],
        stays: bool,
        outcome: _Outcome,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """One mode: its run and its actions, from begin to end; ``stays`` lets actions go on after the run."""
        try:
            with trio.CancelScope() as self._mode_scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._keeper.run)
                    await nursery.start(self._actions.run)
                    task_status.started()
                    self._run = Run(requests, self._keeper, hold=stays)
                    outcome.error = await self._main_thread.finish(self._run)
                    if stays and outcome.error is None:
                        await trio.sleep_forever()
                    nursery.cancel_scope.cancel()
        finally:
            self._keeper.withdraw()
            self._mode_scope = self._run = None
            self._gamepad.enabled = False
            self._reporter.forget()
            self.output.finish()
            self._log.info("mode ended", mode=self._field.mode.name.lower())
            self._field.begin(Mode.IDLE)
            outcome.over.set()
