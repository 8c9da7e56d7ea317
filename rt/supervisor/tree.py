"""The supervisor: all children of a robot, started together and stopped one after another.

The rules of this module: no child outlives `Supervisor.run`; every stop has a reason; and from the
moment at which the supervisor is to stop, no child gets a new process.
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
"""Seconds that are left to children whose turn to stop did not come in time; they get them all at once."""

KILL_TIMEOUT = 0.3
"""Seconds that children may take to be gone after SIGKILL."""


class Supervisor:
    """Children with one owner.

    Args:
        specs: The children, in the order of their stop reversed. Names are unique.
        directory: Where their notify sockets are made; closed to other users.
        on_line: Called with name, stream and text for each line that a child writes; writes it to
            the log by default.
        on_change: Called when the status of a child has changed.
        on_shutdown: Called once when all children are to stop, before the first of them does; it
            may not block or raise.
        stop_timeout: Seconds that the orderly stop of all children together may take; then the late
            ones are killed, and those whose turn did not come get `LAST_GRACE`. A child that is to
            stop last has its own time limit after that.

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
                    f"two children have the name {spec.name!r}: give one of them another",
                    name=spec.name,
                )
            self._children[spec.name] = Child(spec, directory, on_line=on_line, on_change=on_change)
        self._on_shutdown = on_shutdown
        self._stop_timeout = stop_timeout
        self._ending = trio.Event()
        self._reason = ""
        self._log = log.get_logger()

    def status(self) -> list[ChildStatus]:
        """What is known of each child, in the order in which they were given."""
        return [child.status for child in self._children.values()]

    @property
    def ending(self) -> bool:
        """Whether all children are to stop."""
        return self._ending.is_set()

    async def run(
        self, *, task_status: trio.TaskStatus[list[ChildStatus]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Start all children at once, keep them, and stop them in reverse order in the end.

        Ends after `shutdown` or `kill`, or by a cancel, whose reason then becomes the reason of
        every stop. Either way all children are gone when it does; this takes at most
        ``stop_timeout``, `LAST_GRACE` and `KILL_TIMEOUT` together, and then the time limit of a
        child that is to stop last.

        Args:
            task_status: Started with the status of all children when each of them is ready, or has
                failed or stopped for good.
        """
        async with trio.open_nursery() as nursery:
            keeper = trio.CancelScope(shield=True)
            nursery.start_soon(self._keep, keeper)
            nursery.start_soon(self._announce, task_status)
            try:
                await self._ending.wait()
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
                keeper.cancel("all children were stopped")

    def shutdown(self, reason: str) -> None:
        """Have `run` stop all children in order and return. The first reason counts."""
        self._reason = self._reason or reason
        if not self._ending.is_set():
            self._ending.set()
            self._on_shutdown()

    def kill(self, reason: str) -> None:
        """Kill all children now, without grace, and have `run` return; a child that is to stop last is stopped after that."""
        self.shutdown(reason)
        for child in self._children.values():
            if not child.spec.last:
                child.feed(Kill(reason, final=True))

    def child(self, name: str) -> Child:
        """One child.

        Raises:
            RuntimeBaseException: There is no child of this name.
        """
        child = self._children.get(name)
        if child is None:
            known = ", ".join(self._children) or "none"
            raise RuntimeBaseException(f"there is no child {name!r}: known are {known}", name=name)
        return child

    async def _keep(self, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for name, child in self._children.items():
                    nursery.start_soon(child.run, name=f"keeper of {name}")

    async def _announce(self, task_status: trio.TaskStatus[list[ChildStatus]]) -> None:
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
        left = [child.spec.name for child in children if not child.finished.is_set()]
        if left:
            self._log.error("children are still there after SIGKILL", children=left)

    async def _stop_together(self, children: Sequence[Child], reason: str) -> None:
        with trio.move_on_after(self._stop_timeout) as patience:
            for child in children:
                child.feed(Stop(reason, final=True))
                await child.finished.wait()
        if not patience.cancelled_caught:
            return
        late = f"all children together took longer than {self._stop_timeout:g} s to stop"
        with trio.move_on_after(LAST_GRACE):
            # Whoever was asked has had its time; the others have not, and one of them may be what
            # keeps motors safe.
            for child in children:
                asked = child.status.state is State.STOPPING
                child.feed(Kill(late, final=True) if asked else Stop(reason, final=True))
            await _all_finished(children)
        with trio.move_on_after(KILL_TIMEOUT):
            for child in children:
                child.feed(Kill(late, final=True))
            await _all_finished(children)


async def _all_finished(children: Iterable[Child]) -> None:
    for child in children:
        await child.finished.wait()
