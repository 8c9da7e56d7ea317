"""Runs the team's asynchronous actions as tasks of the event loop, beside the main functions.

One action runs once at a time: starting one that is running is refused, and logged once for each
run. When the mode ends, all are cancelled.
"""

import inspect
from collections.abc import Callable
from typing import Any

import trio

from rt import log
from rt.errors import ExecutionError
from rt.team.api import Action

MAX_ACTIONS = 128
"""The most actions that run at once; one more is refused with an error."""


class AsyncExecutor:
    """Executes coroutine functions of the team's code.

    Args:
        token: Of the event loop, so that the main thread can start actions.
        report: Called with an error that an action raised, and the action's name.
        max_actions: The most that run at once.

    Attributes:
        on_error: Called when an action has ended with an error: what it moved has to be stopped.
    """

    def __init__(
        self,
        token: trio.lowlevel.TrioToken,
        report: Callable[[BaseException, str], None],
        max_actions: int = MAX_ACTIONS,
    ) -> None:
        self._token = token
        self._report = report
        self._max_actions = max_actions
        self.on_error: Callable[[], None] = lambda: None
        self._ended = trio.Event()
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
        """Wait until no action runs; a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._running:
            await self._ended.wait()

    def start(self, action: Action, *args: Any) -> None:
        """Start an action; any thread.

        Raises:
            ExecutionError: It is no coroutine function, or too many are running.
        """
        name = getattr(action, "__name__", repr(action))
        if not inspect.iscoroutinefunction(action):
            raise ExecutionError(
                f"{name} is no action: write it as `async def {name}(...)`", action=name
            )
        if action in self._running:
            if action not in self._warned:  # main may ask at each call
                self._warned.add(action)
                self._log.warning(
                    "the action is running already: it is not started again before it ends",
                    action=name,
                )
            return
        if len(self._running) >= self._max_actions:
            raise ExecutionError(
                f"{self._max_actions} actions are running: {name} is not started", action=name
            )
        self._running.add(action)
        try:
            self._token.run_sync_soon(self._spawn, action, args, name)
        except trio.RunFinishedError:
            self._running.discard(action)

    def is_running(self, action: Action) -> bool:
        """Whether an action has been started and has not ended; any thread."""
        return action in self._running

    def _spawn(self, action: Action, args: tuple[Any, ...], name: str) -> None:
        if self._nursery is None:
            self._running.discard(action)
            self._log.warning("the action is not started: no mode is running", action=name)
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
        except BaseException as error:  # noqa: BLE001 - whatever an action raises, SystemExit too, ends it alone
            self._fail(error, name)
        finally:
            self._running.discard(action)
            self._warned.discard(action)
            self._ended.set()
            self._ended = trio.Event()
