"""Who owns the tasks of one process, and how they end.

The rule of this module: the tasks end first, then what was held for them is closed, in reverse
order, and last of all signals do again what they did before.
"""

import contextlib
import threading
from types import TracebackType
from typing import Self, TypeVar

import trio

from rt import log
from rt.app.signals import answered
from rt.diagnostics.slow_tasks import SlowTasks, slow_task_monitor

T = TypeVar("T")


class TaskOwner:
    """Owns tasks; an async context manager, whose block a signal or `stop` cancels.

    Args:
        name: Of the process, in the log.
        signals: Whether SIGINT and SIGTERM stop it, where it runs in the main thread.
        debug: Whether steps of the event loop that are too long are told of.
    """

    def __init__(self, name: str, *, signals: bool, debug: bool) -> None:
        self.name = name
        self.logger = log.get_logger()
        self.stopped: str | None = None
        self.slow_tasks: SlowTasks | None = None
        self._signals = signals
        self._debug = debug
        self._stack = contextlib.AsyncExitStack()
        self._held = contextlib.ExitStack()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            if self._signals and threading.current_thread() is threading.main_thread():
                stack.enter_context(answered(self._answer))
            if self._debug:
                self.slow_tasks = stack.enter_context(slow_task_monitor())
            stack.enter_context(self._held)
            stack.enter_context(self._scope)
            self._nursery = await stack.enter_async_context(trio.open_nursery())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self.nursery.cancel_scope.cancel("the application is over")
        try:
            return await self._stack.__aexit__(kind, error, traceback)
        finally:
            log.flush()

    def stop(self, reason: str) -> None:
        """Cancel what runs in the application's block; only the first call counts."""
        if self.stopped is None:
            self.stopped = reason
            self._scope.cancel(reason)

    def _answer(self, name: str) -> None:
        if self.stopped is None:
            self.logger.info("the application stops", process=self.name, reason=f"received {name}")
        self.stop(f"received {name}")

    @property
    def nursery(self) -> trio.Nursery:
        """The owner of this process's tasks."""
        if self._nursery is None:
            raise RuntimeError("an Application is used within `async with`")
        return self._nursery

    async def _own(self, resource: contextlib.AbstractAsyncContextManager[T]) -> T:
        """Keep something open in a task of its own, so that any task of the process may ask for it."""

        async def hold(task_status: trio.TaskStatus[T]) -> None:
            async with resource as opened:
                task_status.started(opened)
                await trio.sleep_forever()

        opened: T = await self.nursery.start(hold)
        return opened
