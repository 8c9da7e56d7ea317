"""Actions of team code: coroutine functions that run as tasks of the event loop.

An action runs at most once at a time. A start while it is running has no effect, and is logged once
per run. The end of the mode cancels all actions.
"""

import inspect
from collections.abc import Callable
from typing import Any

import trio

from rt import log
from rt.errors import ExecutionError
from rt.team.api import Action

MAX_ACTIONS = 128
"""How many actions can run at once; one more is an error."""


class AsyncExecutor:
    """Runs actions of team code on the event loop in which it is created.

    Args:
        report: Called with an error that an action raised, and the action's name.
        max_actions: How many actions can run at once.

    Attributes:
        on_error: Called when an action has failed; must stop what the action moved.
    """

    def __init__(
        self, report: Callable[[BaseException, str], None], max_actions: int = MAX_ACTIONS
    ) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._report = report
        self._max_actions = max_actions
        self.on_error: Callable[[], None] = lambda: None
        self._ended = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._running: set[Action] = set()
        self._warned: set[Action] = set()
        self._log = log.get_logger()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the actions of one mode until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._running.clear()
            self._warned.clear()

    async def wait_all_ended(self) -> None:
        """Wait until no action is running; a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._running:
            await self._ended.park()

    def start(self, action: Action, *args: Any) -> None:
        """Start an action. Thread-safe.

        Raises:
            ExecutionError: It is not a coroutine function, or too many actions are running.
        """
        name = getattr(action, "__name__", repr(action))
        if not inspect.iscoroutinefunction(action):
            raise ExecutionError(
                f"{name} is not an action: write it as `async def {name}(...)`", action=name
            )
        if action in self._running:
            if action not in self._warned:  # main may start it in every call
                self._warned.add(action)
                self._log.warning("action already running: not started again", action=name)
            return
        if len(self._running) >= self._max_actions:
            raise ExecutionError(
                f"{name} was not started: {self._max_actions} actions are already running",
                action=name,
            )
        self._running.add(action)
        try:
            self._token.run_sync_soon(self._spawn, action, args, name)
        except trio.RunFinishedError:
            self._running.discard(action)

    def is_running(self, action: Action) -> bool:
        """Return whether an action was started and has not ended. Thread-safe."""
        return action in self._running

    def _spawn(self, action: Action, args: tuple[Any, ...], name: str) -> None:
        if self._nursery is None:
            self._running.discard(action)
            self._log.warning("action not started: no mode is running", action=name)
        else:
            self._nursery.start_soon(self._execute, action, args, name, name=f"action {name}")

    def _fail(self, error: BaseException, name: str) -> None:
        self.on_error()
        self._report(error, name)

    async def _execute(self, action: Action, args: tuple[Any, ...], name: str) -> None:
        try:
            with log.bound(action=name):
                await action(*args)
        except (trio.Cancelled, GeneratorExit):
            raise
        except BaseExceptionGroup as group:
            cancelled, rest = group.split(trio.Cancelled)
            if rest is not None:
                self._fail(rest, name)
            if cancelled is not None:
                raise cancelled from None
        except BaseException as error:  # noqa: BLE001 - also SystemExit ends only its action
            self._fail(error, name)
        finally:
            self._running.discard(action)
            self._warned.discard(action)
            self._ended.unpark_all()
