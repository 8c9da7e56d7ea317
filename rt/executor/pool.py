"""The executor processes of a robot: one that waits for a mode, and a standby that takes the next one while the first is busy.

A process runs one mode. When that is over, the process is ended and another is started in its place. The standby exists only while
the other one is busy, so an idle robot has one executor process.
"""

import os
from typing import Final, NamedTuple

import trio

from rt.buffer.bells import EXECUTOR_SEAT, STANDBY_SEAT
from rt.config.team_code import removed_directory
from rt.errors import ExecutionError
from rt.supervisor.child import Child
from rt.supervisor.life import Restart, Start, State, Stop
from rt.supervisor.spec import ChildStatus
from rt.supervisor.table import AT_REST
from rt.supervisor.tree import Supervisor

EXECUTOR: Final = "executor"
STANDBY: Final = "standby"
SEATS: Final = {EXECUTOR: EXECUTOR_SEAT, STANDBY: STANDBY_SEAT}
"""The seats of the executor processes, by the names of the children."""
READY_LIMIT: Final = 15.0
"""How long a mode waits for a process that is ready (s)."""


SEEN_LIMIT: Final = 5.0
"""How long the supervisor may take to see the end of a process and to remove what it leaves behind (s)."""


class Assignment(NamedTuple):
    """A process that is kept for one mode.

    Attributes:
        child: The child that it is a process of.
        pid: The process.
    """

    child: Child
    pid: int | None


class ExecutorPool:
    """Finds a process for each mode.

    Args:
        supervisor: Has the children `EXECUTOR` and `STANDBY`.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._executor = supervisor.child(EXECUTOR)
        self._standby = supervisor.child(STANDBY)
        self._busy: dict[Child, int | None] = {}
        self._standby_due = False
        self._news = trio.Event()

    async def acquire(self) -> Assignment:
        """Wait for a process that is ready, and keep it for one mode; then `recycle` it.

        An executor that has failed for good is started again: code that has been corrected may run.

        Raises:
            ExecutionError: None gets ready in time; the message says why.
        """
        removed = removed_directory()
        if removed is not None:
            raise ExecutionError(removed)
        if self._executor.status.state is State.FAILED:
            self._executor.feed(Start("a mode begins"))
        with trio.move_on_after(READY_LIMIT):
            while (child := self._free()) is None:
                if self._executor.status.state is State.FAILED:
                    break
                await self._news.wait()
            else:
                assignment = Assignment(child, child.status.pid)
                self._busy[child] = assignment.pid
                return assignment
        status = self._executor.status
        raise ExecutionError(f"no process can run the team's code: the executor is {status.state} ({status.reason})")

    def prepare_next(self) -> None:
        """Start the standby if the executor is busy; one that is just being stopped starts when it has ended."""
        self._standby_due = self._executor in self._busy
        self.look()

    async def ended(self, assignment: Assignment, *, within: float) -> None:
        """Wait so long (s) for the process of a mode to end; until its supervisor has seen it if it has ended."""
        with trio.move_on_after(within):
            await self._seen_to_end(assignment)
        if assignment.pid is not None and _has_exited(assignment.pid):
            with trio.move_on_after(SEEN_LIMIT):
                await self._seen_to_end(assignment)

    async def gone(self, assignment: Assignment) -> None:
        """Wait until the supervisor has seen the end of a process that was recycled."""
        child, pid = assignment
        while pid is not None and child.status.pid == pid:
            await self._news.wait()

    def kill(self, assignment: Assignment) -> None:
        """Kill a process that was recycled and has not ended yet."""
        child, pid = assignment
        if pid is not None:
            child.kill_process(pid)

    async def _seen_to_end(self, assignment: Assignment) -> None:
        child, pid = assignment
        while self._busy.get(child) == pid == child.status.pid:
            await self._news.wait()

    def recycle(self, assignment: Assignment, reason: str) -> None:
        """End a process whose mode is over, unless it has ended by itself; idempotent."""
        child, pid = assignment
        if child in self._busy and self._busy[child] == pid:
            del self._busy[child]
            self._standby_due = False
            if child is self._standby:
                child.feed(Stop(reason))
            elif child.status.pid == pid:
                child.feed(Restart(reason, planned=True))
        self.look()

    def changed(self, status: ChildStatus) -> None:
        """Look at a child again; called with every change."""
        if status.name in SEATS:
            self.look()

    def look(self) -> None:
        """Wake the tasks that wait for a process, and start or stop the standby if that is due."""
        self._news.set()
        self._news = trio.Event()
        if self._executor.status.ready and not self._busy and self._standby.status.state in _ALIVE:
            self._standby.feed(Stop("the executor is ready"))
        elif self._standby_due and self._standby.status.state in AT_REST:
            self._standby_due = False  # a standby that fails for good is not started again in this mode
            self._standby.feed(Start("the executor runs a mode"))

    def _free(self) -> Child | None:
        for child in (self._executor, self._standby):
            if child not in self._busy and child.status.ready and child.channel is not None:
                return child
        return None


def _has_exited(pid: int) -> bool:
    """Whether a child of this process has exited, reaped or not; does not wait."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


_ALIVE: Final = frozenset({State.SPAWNING, State.STARTING, State.READY, State.BACKOFF})
