"""The supervisor of a robot's children, which starts them together and stops them in order.

Invariant: no child outlives `Supervisor.run`, every stop has a reason, and no process is started
once the supervisor is stopping.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import trio

from rt import log
from rt.errors import ConfigError, RuntimeBaseException
from rt.process.output import OnLine, log_line
from rt.supervisor.child import Child, OnChange
from rt.supervisor.spec import ChildSpec, ChildStatus
from rt.supervisor.state import Kill, NoRestart, State, Stop

LAST_GRACE = 0.3
"""Time that all children together still have to stop if the stop timeout expires before it is their
turn (s).
"""

KILL_TIMEOUT = 0.3
"""Time that children may take to exit after SIGKILL (s)."""


class Supervisor:
    """Supervises several children.

    Args:
        specs: The children, in the reverse order of their stop. Names are unique.
        directory: The directory for notify sockets, which other users cannot enter.
        on_line: Called with name, stream and text for each line of output; by default the lines are
            logged.
        on_change: Called when the status of a child has changed.
        on_shutdown: Called once before the first child is stopped; may not block or raise.
        stop_timeout: Time limit for the orderly stop of all children together (s). After it, those
            that are stopping are killed, and the others get `LAST_GRACE`. A child with ``last`` has
            its own time limit after that.

    Raises:
        ConfigError: Two children have the same name.
    """

    def __init__(
        self,
        specs: Iterable[ChildSpec],
        directory: Path,
        *,
        on_line: OnLine = log_line,
        on_change: OnChange | None = None,
        on_shutdown: Callable[[], None] = lambda: None,
        stop_timeout: float = 2.0,
    ) -> None:
        self._children: dict[str, Child] = {}
        for spec in specs:
            if spec.name in self._children:
                raise ConfigError(
                    f"two children have the name {spec.name!r}; rename one of them", name=spec.name
                )
            self._children[spec.name] = Child(spec, directory, on_line=on_line, on_change=on_change)
        self._on_shutdown = on_shutdown
        self._stop_timeout = stop_timeout
        self._stopping = trio.Event()
        self._reason = ""
        self._log = log.get_logger()

    def status(self) -> list[ChildStatus]:
        """Return the status of each child, in the order of ``specs``."""
        return [child.status for child in self._children.values()]

    @property
    def ending(self) -> bool:
        """Whether the supervisor is stopping."""
        return self._stopping.is_set()

    async def run(
        self, *, task_status: trio.TaskStatus[list[ChildStatus]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Start all children at once, supervise them, and stop them in reverse order.

        Returns after `shutdown` or `kill`. A cancel stops the children too; its reason becomes the
        reason of every stop. In both cases all children have exited afterwards. The stop takes at
        most the sum of ``stop_timeout``, `LAST_GRACE`, `KILL_TIMEOUT` and the time limit of a child
        with ``last``.

        Args:
            task_status: Started with the status of all children when each of them is ready, failed
                or stopped.
        """
        async with trio.open_nursery() as nursery:
            children_scope = trio.CancelScope(shield=True)
            nursery.start_soon(self._run_children, children_scope)
            nursery.start_soon(self._report_started, task_status)
            try:
                await self._stopping.wait()
            except trio.Cancelled as cancelled:
                self._reason = (
                    self._reason
                    or getattr(cancelled, "reason", None)
                    or "the supervisor was cancelled"
                )
                raise
            finally:
                with trio.CancelScope(shield=True):
                    await self._stop_all(self._reason or "the supervisor failed")
                children_scope.cancel("all children were stopped")

    def shutdown(self, reason: str) -> None:
        """Have `run` stop all children in order and return. The first reason counts."""
        self._reason = self._reason or reason
        if not self._stopping.is_set():
            self._stopping.set()
            self._on_shutdown()

    def kill(self, reason: str) -> None:
        """Kill all children at once and have `run` return; one with ``last`` is stopped then."""
        self.shutdown(reason)
        for child in self._children.values():
            if not child.spec.last:
                child.feed(Kill(reason, final=True))

    def child(self, name: str) -> Child:
        """Return a child by name.

        Raises:
            RuntimeBaseException: No child has this name.
        """
        child = self._children.get(name)
        if child is None:
            known = ", ".join(self._children) or "no children"
            raise RuntimeBaseException(f"no child named {name!r}; there are {known}", name=name)
        return child

    async def _run_children(self, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for name, child in self._children.items():
                    nursery.start_soon(child.run, name=f"supervisor of {name}")

    async def _report_started(self, task_status: trio.TaskStatus[list[ChildStatus]]) -> None:
        for child in self._children.values():
            await child.until(lambda status: status.settled)
        task_status.started(self.status())

    async def _stop_all(self, reason: str) -> None:
        self._log.info("stopping all children", reason=reason)
        children = list(reversed(self._children.values()))
        for child in children:
            child.feed(NoRestart(reason))
        await self._stop_together([child for child in children if not child.spec.last], reason)
        last = [child for child in children if child.spec.last]
        for child in last:
            child.feed(Stop(reason, final=True))
        with trio.move_on_after(
            max((child.spec.stop_timeout for child in last), default=0) + KILL_TIMEOUT
        ):
            await _all_finished(last)
        remaining = [child.spec.name for child in children if not child.finished.is_set()]
        if remaining:
            self._log.error("children still running after SIGKILL", children=remaining)

    async def _stop_together(self, children: Sequence[Child], reason: str) -> None:
        with trio.move_on_after(self._stop_timeout) as scope:
            for child in children:
                child.feed(Stop(reason, final=True))
                await child.finished.wait()
        if not scope.cancelled_caught:
            return
        late = f"all children together took longer than {self._stop_timeout:g} s to stop"
        with trio.move_on_after(LAST_GRACE):
            # Children that were not asked yet still get some time, because one of them may be the
            # device process, which disables the motors.
            for child in children:
                was_asked = child.status.state is State.STOPPING
                child.feed(Kill(late, final=True) if was_asked else Stop(reason, final=True))
            await _all_finished(children)
        with trio.move_on_after(KILL_TIMEOUT):
            for child in children:
                child.feed(Kill(late, final=True))
            await _all_finished(children)


async def _all_finished(children: Iterable[Child]) -> None:
    for child in children:
        await child.finished.wait()
