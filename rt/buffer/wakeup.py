"""Bells: how a process that waits for a change of a buffer is woken, without anybody polling.

Each process that takes part in a robot has a seat, a small number. By its seat it is known as the
holder of a lease, as the one that wrote a value, and as the one that waits: every seat has a bell,
an eventfd that all processes of the robot share. Who waits sets its seat's bit in a buffer's
header; who changes the buffer takes the bits and rings those bells. So a change that nobody waits
for costs one look, and any number of changes before the waiting process runs count as one ring.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import Final

import trio

from rt.buffer.write_event import WriteEvent

SLOTS: Final = 16
EXECUTOR_SLOT: Final = 0
"""The process that runs the team's code."""
ROOT_SLOT: Final = 1
DEVICE_SLOT: Final = 2
STANDBY_SLOT: Final = 3
"""The process that runs the team's code next, while another one runs a mode."""
FIRST_SESSION_SLOT: Final = 8
"""From here on seats are for processes that come and go; the others are for rt's own and for components."""


class Wakeups:
    """The bells of one robot, as the process of one seat has them.

    Args:
        fds: The eventfds of all seats, by seat; None to make them. Whoever makes them closes them.
        slot: The slot of this process.
    """

    def __init__(self, fds: Sequence[int] | None = None, *, slot: int = EXECUTOR_SLOT) -> None:
        self._owned = fds is None
        self.fds = (
            tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(SLOTS))
            if fds is None
            else tuple(fds)
        )
        self.slot = slot
        self._own = WriteEvent(self.fds[slot])
        self._somebody_waits = False
        self._others = trio.lowlevel.ParkingLot()

    def signal(self, slots: int) -> None:
        """Ring the bells of a bitmap of seats. Any thread; never waits."""
        for slot, fd in enumerate(self.fds):
            if slots >> slot & 1:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(fd, 1)

    async def wait(self) -> None:
        """Wait until this process's bell has been rung; a checkpoint. Any number of tasks may wait, and one ring wakes them all.

        It may return without a ring, so look again at what is waited for. A cancel takes no ring
        away.
        """
        if self._somebody_waits:
            await self._others.park()
            return
        self._somebody_waits = True
        try:
            await self._own.wait()
        finally:
            # Also after a cancel: one of the others has to take over.
            self._somebody_waits = False
            self._others.unpark_all()

    def close(self) -> None:
        """Close the eventfds if they were made here."""
        if self._owned:
            self._owned = False
            for fd in self.fds:
                os.close(fd)
