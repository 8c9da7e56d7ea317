"""The executor processes of a robot: the executor and its standby.

A process runs one mode. When the mode is over, the process is ended and replaced. The standby takes
the next mode while the executor is busy. It exists only then, so an idle robot has one executor
process.
"""

import os
from typing import Final, NamedTuple

import trio

from rt.buffer.wakeup import EXECUTOR_SLOT, STANDBY_SLOT
from rt.config.team_code import removed_directory
from rt.errors import ExecutionError
from rt.supervisor.child import Child
from rt.supervisor.spec import ChildStatus
from rt.supervisor.state import Restart, Start, State, Stop
from rt.supervisor.transitions import AT_REST
from rt.supervisor.tree import Supervisor

EXECUTOR: Final = "executor"
STANDBY: Final = "standby"
EXECUTOR_SLOTS: Final = {EXECUTOR: EXECUTOR_SLOT, STANDBY: STANDBY_SLOT}
"""The slots of the executor processes, by child name."""
_ALIVE: Final = frozenset({State.SPAWNING, State.STARTING, State.READY, State.BACKOFF})
READY_LIMIT: Final = 15.0
"""How long a mode waits for a ready process, in s."""
REAP_LIMIT: Final = 5.0
"""How long the supervisor may take to reap a process and clean up after it, in s."""


class Assignment(NamedTuple):
    """A process that is reserved for one mode.

    Attributes:
        child: The child.
        pid: Its process.
    """

    child: Child
    pid: int


class ExecutorPool:
    """Assigns a process to each mode.

    Args:
        supervisor: Has the children `EXECUTOR` and `STANDBY`.
        ready_limit: See `READY_LIMIT`.
    """

    def __init__(self, supervisor: Supervisor, *, ready_limit: float = READY_LIMIT) -> None:
        self._ready_limit = ready_limit
        self._executor = supervisor.child(EXECUTOR)
        self._standby = supervisor.child(STANDBY)
        self._busy: dict[Child, int] = {}
        self._standby_due = False
        self._changed = trio.lowlevel.ParkingLot()

    async def acquire(self) -> Assignment:
        """Wait for a ready process and reserve it for one mode; `recycle` it afterwards.

        An executor that has failed for good is started again, because the code may have been
        corrected.

        Raises:
            ExecutionError: No process is ready in time; the message says why.
        """
        removed = removed_directory()
        if removed is not None:
            raise ExecutionError(removed)
        if self._executor.status.state is State.FAILED:
            self._executor.feed(Start("a mode begins"))
        with trio.move_on_after(self._ready_limit):
            while (assignment := self._find_ready()) is None:
                if self._executor.status.state is State.FAILED:
                    break
                await self._changed.park()
            else:
                self._busy[assignment.child] = assignment.pid
                return assignment
        status = self._executor.status
        raise ExecutionError(
            f"no process can run team code: the executor is {status.state} ({status.reason})"
        )

    def prepare_next(self) -> None:
        """Start the standby if the executor is busy, or once it has ended if it is stopping."""
        self._standby_due = self._executor in self._busy
        self.update()

    async def wait_exited(self, assignment: Assignment, *, within: float) -> None:
        """Wait for the process of a mode to exit, ``within`` s at most.

        If it has exited, this waits until its supervisor has seen it.
        """
        with trio.move_on_after(within):
            await self._wait_ended(assignment)
        if _has_exited(assignment.pid):
            with trio.move_on_after(REAP_LIMIT):
                await self._wait_ended(assignment)

    async def wait_reaped(self, assignment: Assignment) -> None:
        """Wait until the supervisor has seen the end of a recycled process."""
        child, pid = assignment
        while child.status.pid == pid:
            await self._changed.park()

    def kill(self, assignment: Assignment) -> None:
        """Kill a recycled process that has not ended yet."""
        assignment.child.kill_process(assignment.pid)

    async def _wait_ended(self, assignment: Assignment) -> None:
        child, pid = assignment
        while self._busy.get(child) == pid == child.status.pid:
            await self._changed.park()

    def recycle(self, assignment: Assignment, reason: str) -> None:
        """End a process whose mode is over, unless it has ended by itself; idempotent."""
        child, pid = assignment
        if self._busy.get(child) == pid:
            del self._busy[child]
            self._standby_due = False
            if child is self._standby:
                child.feed(Stop(reason))
            elif child.status.pid == pid:
                child.feed(Restart(reason, planned=True))
        self.update()

    def changed(self, status: ChildStatus) -> None:
        """Handle a change of a child's state."""
        if status.name in EXECUTOR_SLOTS:
            self.update()

    def update(self) -> None:
        """Wake the tasks that wait for a process, and start or stop the standby if due."""
        self._changed.unpark_all()
        if self._executor.status.ready and not self._busy and self._standby.status.state in _ALIVE:
            self._standby.feed(Stop("the executor is ready"))
        elif self._standby_due and self._standby.status.state in AT_REST:
            # A standby that fails for good is not started again in this mode.
            self._standby_due = False
            self._standby.feed(Start("the executor runs a mode"))

    def _find_ready(self) -> Assignment | None:
        for child in (self._executor, self._standby):
            pid = child.status.pid if child.status.ready and child.channel is not None else None
            if child not in self._busy and pid is not None:
                return Assignment(child, pid)
        return None


def _has_exited(pid: int) -> bool:
    """Return whether a child process has exited, reaped or not; does not wait."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
