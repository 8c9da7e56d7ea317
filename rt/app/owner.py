"""The owner of a process's tasks and resources.

Invariant: tasks end first, then resources are closed in reverse order, and finally the previous
signal handlers are restored.
"""

import contextlib
import threading
from types import TracebackType
from typing import Self, TypeVar

import trio

from rt import log
from rt.diagnostics.slow_tasks import SlowTasks, slow_task_monitor
from rt.process.signals import call_on_signal

T = TypeVar("T")


class TaskOwner:
    """An async context manager that owns tasks; a signal or `stop` cancels its block.

    Args:
        name: The name of the process in the log.
        signals: Whether SIGINT and SIGTERM stop it, if it runs in the main thread.
        debug: Whether slow tasks are logged.
    """

    def __init__(self, name: str, *, signals: bool, debug: bool) -> None:
        self.name = name
        self.logger = log.get_logger()
        self.stopped: str | None = None
        self.slow_tasks: SlowTasks | None = None
        self._signals = signals
        self._debug = debug
        self._stack = contextlib.AsyncExitStack()
        self._resources = contextlib.ExitStack()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            if self._signals and threading.current_thread() is threading.main_thread():
                stack.enter_context(call_on_signal(self._on_signal))
            if self._debug:
                self.slow_tasks = stack.enter_context(slow_task_monitor())
            stack.enter_context(self._resources)
            stack.enter_context(self._scope)
            self._nursery = await stack.enter_async_context(trio.open_nursery())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self.nursery.cancel_scope.cancel("the application's block has ended")
        try:
            return await self._stack.__aexit__(error_type, error, traceback)
        finally:
            log.flush()

    def stop(self, reason: str) -> None:
        """Cancel the application's block; only the first call counts."""
        if self.stopped is None:
            self.stopped = reason
            self._scope.cancel(reason)

    def _on_signal(self, name: str) -> None:
        if self.stopped is None:
            self.logger.info("application stopping", process=self.name, reason=f"received {name}")
        self.stop(f"received {name}")

    @property
    def nursery(self) -> trio.Nursery:
        """The owner of this process's tasks."""
        if self._nursery is None:
            raise RuntimeError("use the Application within `async with`")
        return self._nursery

    async def _own(self, resource: contextlib.AbstractAsyncContextManager[T]) -> T:
        """Open a resource in a task of its own, so that any task of the process may call this."""

        async def hold(task_status: trio.TaskStatus[T]) -> None:
            async with resource as opened:
                task_status.started(opened)
                await trio.sleep_forever()

        opened: T = await self.nursery.start(hold)
        return opened
