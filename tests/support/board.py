"""A motor that never stops by itself, to measure motion at the device.

It moves from a write that is not zero until DEV_DISABLE or a write of zero. Messages are stamped
when they are read from the line.
"""

import time
from collections.abc import Callable

import trio
from support.robot import PATIENCE, Device

from rt.protocol.message import DevDisable, DevWrite, Message

PARAM = "duty_cycle"


class Board(Device):
    """A polar-bear on a line, with the times at which it started to move and stopped.

    Attributes:
        pulses: Begin and end of each motion, by `time.monotonic` (s); the end of the current one is
            None.
        writes_heard: How many messages have set the motor.
    """

    def __init__(self, number: int = 1) -> None:
        super().__init__("polar-bear", number)
        self.pulses: list[tuple[float, float | None]] = []
        self.writes_heard = 0
        self._changed = trio.Event()

    def _take(self, message: Message) -> None:
        now = time.monotonic()
        if isinstance(message, DevDisable):
            self._move(now, moving=False)
        elif isinstance(message, DevWrite):
            values = self.emulated.peripheral.unpack(message.params, message.data)
            if PARAM in values:
                self.writes_heard += 1
                self._move(now, moving=bool(values[PARAM]))
        super()._take(message)

    def _move(self, now: float, *, moving: bool) -> None:
        if moving and not self.moving:
            self.pulses.append((now, None))
        elif not moving and self.moving:
            self.pulses[-1] = (self.pulses[-1][0], now)
        self._changed.set()
        self._changed = trio.Event()

    @property
    def moving(self) -> bool:
        """Whether the motor moves now."""
        return bool(self.pulses) and self.pulses[-1][1] is None

    async def moves(self) -> None:
        """Wait until the motor moves."""
        await self.settles(lambda: self.moving)

    async def stops(self) -> float:
        """Wait until the motor does not move, and return when it stopped."""
        await self.settles(lambda: not self.moving)
        end = self.pulses[-1][1]
        assert end is not None
        return end

    async def settles(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition of the motor is met."""
        with trio.fail_after(PATIENCE):
            while not condition():
                await self._changed.wait()

    def moved_since(self, moment: float) -> float:
        """Return how long (s) the motor has moved since a moment."""
        now = time.monotonic()
        return sum(
            max(0.0, (now if end is None else end) - max(begin, moment))
            for begin, end in self.pulses
        )
