"""Slots and wakeups: how a process that waits for a change of a buffer is woken without polling.

Each process of a robot has a slot, a small number. Under its slot a process holds a lease, writes
values and waits for changes: each slot has a wakeup, an eventfd that all processes of the robot
share. A process that waits sets its slot's bit in a buffer's header. The process that changes the
buffer takes the bits and signals those wakeups. So a change without a waiting process costs one
check, and any number of changes before the waiting process runs are one wakeup.
"""

from collections.abc import Sequence
from typing import Final

import trio

from rt.buffer.write_event import WriteEvent

SLOTS: Final = 16
EXECUTOR_SLOT: Final = 0
"""The process that runs team code."""
ROOT_SLOT: Final = 1
DEVICE_SLOT: Final = 2
STANDBY_SLOT: Final = 3
"""The process that runs team code next, while another one runs a mode."""
FIRST_SESSION_SLOT: Final = 8
"""The first slot of sessions; lower slots are for rt's own processes and components."""


class Wakeups:
    """The wakeups of one robot, as seen by the process of one slot.

    Args:
        fds: The eventfds by slot, or None to create them; then `close` closes them.
        slot: The slot of this process.
    """

    def __init__(self, fds: Sequence[int] | None = None, *, slot: int = EXECUTOR_SLOT) -> None:
        self._events = [WriteEvent(fd) for fd in ([None] * SLOTS if fds is None else fds)]
        self.fds = tuple(event.fd for event in self._events)
        self.slot = slot
        self._is_waiting = False
        self._others = trio.lowlevel.ParkingLot()

    def signal(self, slots: int) -> None:
        """Signal the wakeups of a bitmap of slots. Callable from any thread; never blocks."""
        for slot, event in enumerate(self._events):
            if slots >> slot & 1:
                event.signal()

    async def wait(self) -> None:
        """Wait until this process's wakeup is signalled; a checkpoint.

        Any number of tasks may wait, and one signal wakes them all. It may return without a signal,
        so check the condition again. Cancellation loses no signal.
        """
        if self._is_waiting:
            await self._others.park()
            return
        self._is_waiting = True
        try:
            await self._events[self.slot].wait()
        finally:
            # Also after cancellation: another task has to take over.
            self._is_waiting = False
            self._others.unpark_all()

    def close(self) -> None:
        """Close the eventfds if they were created here."""
        for event in self._events:
            event.close()
