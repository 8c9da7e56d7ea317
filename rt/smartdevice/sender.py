"""What goes out to one Smart Device, and in which order.

One task sends, and it chooses what goes next: a disable before all else, then answers to heartbeats, then requests, then the
values that were written to the buffer. Nothing stands in front of a disable but the frame that is already on its way.

The rule of this module: a DEV_WRITE is sent only if the gate is open at that moment, and if the gate closed while it was on its
way, a DEV_DISABLE follows it.
"""

import collections
import math
from typing import Final, Protocol

import trio

from rt.buffer import DeviceBuffer, NullDevice
from rt.errors import BufferBusyError, DeviceError
from rt.protocol import frames
from rt.protocol.message import DevDisable, DevRead, DevWrite, HbRes, Message
from rt.smartdevice.exchange import Exchange
from rt.smartdevice.link import Link

BACKOFF_TIME: Final = 1.0
"""How long the write interval stays doubled after a device asked to be sent less, in s."""

BUSY_PAUSE: Final = 0.001
"""Time until a buffer's lock is tried again, in s."""

DISABLE_FRAME: Final = frames.encode(DevDisable())
_MOST_ANSWERS: Final = 16
_MOST_REQUESTS: Final = 64


class Gate(Protocol):
    """What says whether anything may move now."""

    @property
    def open(self) -> bool:
        """Whether a write may be sent at this very moment."""

    def dropped(self, port: str, count: int) -> None:
        """Take note that writes of so many parameters were dropped because the gate is closed."""


class Sender:
    """Sends to one device; its methods return at once, `run` does the work.

    Args:
        link: The line to the device.
        gate: Says whether writes may be sent.
        write_interval: Least time between two rounds of reads and writes in s.

    Attributes:
        buffer: Where reads and writes are collected from, and whose counters count.
        write_interval: As above; may be changed.
        disables: Answered with None whenever a DEV_DISABLE was handed to the line (key 0).
    """

    def __init__(self, link: Link, gate: Gate, write_interval: float) -> None:
        self.buffer: DeviceBuffer = NullDevice.private()
        self.write_interval = write_interval
        self.disables: Exchange[None] = Exchange(link.name)
        self._link = link
        self._gate = gate
        self._wake = trio.Event()
        self._disable = False
        self._forget = False
        self._dirty = False
        self._idle = False
        self._values: collections.deque[DevRead | DevWrite] = collections.deque()  # at most one round of the buffer
        self._next_write = 0.0
        self._backoff_until = 0.0
        self._answers: collections.deque[int] = collections.deque(maxlen=_MOST_ANSWERS)  # a flood loses the oldest
        self._requests: collections.deque[Message] = collections.deque()

    def disable(self) -> None:
        """Have the device disabled before anything else is sent, and forget pending writes."""
        self._disable = True
        self._forget_writes()
        for message in self._values:
            if isinstance(message, DevWrite):
                self._drop(message)
        self._values.clear()
        self._wake.set()

    def answer_heartbeat(self, heartbeat_id: int) -> None:
        """Give a sign of life."""
        self._answers.append(heartbeat_id)
        self._wake.set()

    def request(self, message: Message) -> None:
        """Send a message in its turn.

        Raises:
            DeviceError: Too many wait already, as with a device that takes nothing any more.
        """
        if len(self._requests) >= _MOST_REQUESTS:
            raise DeviceError(f"{self._link.name} takes no more requests: {_MOST_REQUESTS} wait", port=self._link.name)
        self._requests.append(message)
        self._wake.set()

    def kick(self) -> None:
        """Look whether the buffer holds something to send; what may go out at once is on the line when this returns.

        Writes are forgotten at once if the gate is closed.
        """
        if not self.buffer.dirty:
            return
        self._dirty = True
        if not self._gate.open:
            self._forget_writes()
        elif self._idle and not self._wake.is_set() and not self._forget and self._collect() == 0:
            while self._values and self._link.send_nowait(frames.encode(self._values[0])):
                self._count(self._values.popleft())
        if self._dirty or self._values or self._disable:
            self._wake.set()

    def back_off(self) -> None:
        """Send less for a while."""
        self._backoff_until = trio.current_time() + BACKOFF_TIME

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            LinkGoneError: The device is gone.
        """
        # A process that was killed here before may have left half a frame on the line, and a device that acts.
        await self._link.send(frames.DELIMITER)
        self._disable = True
        while True:
            if self._disable:
                self._disable = False
                await self._send(DISABLE_FRAME)
                self.buffer.counters.disables += 1
                self.disables.answer(0, None)
            elif self._answers:
                await self._send(frames.encode(HbRes(self._answers.popleft())))
            elif self._requests:
                await self._send(frames.encode(self._requests.popleft()))
            elif self._values:
                await self._send_value(self._values.popleft())
            else:
                delay = self._look()
                if delay > 0:
                    await self._wait(delay)

    def _look(self) -> float:
        """Look after the buffer when nothing else is to be sent; the time after which to look again (s)."""
        if self._forget:
            return 0 if self._forget_writes() else BUSY_PAUSE
        return self._collect() if self._dirty else math.inf

    def _collect(self) -> float:
        """Take what is to be read and written out of the buffer, if it is time; else the time to wait (s)."""
        now = trio.current_time()
        if now < self._next_write:
            return self._next_write - now
        try:
            self._values.extend(self.buffer.emit_dev_rw())
        except BufferBusyError:
            return BUSY_PAUSE
        self._dirty = False
        self._next_write = now + self.write_interval * (2 if now < self._backoff_until else 1)
        return 0

    async def _send_value(self, message: DevRead | DevWrite) -> None:
        if isinstance(message, DevRead) or self._gate.open:
            await self._link.send(frames.encode(message))
            self._count(message)
        else:
            self._drop(message)

    def _count(self, message: DevRead | DevWrite) -> None:
        counters = self.buffer.counters
        counters.frames_sent += 1
        if isinstance(message, DevWrite):
            counters.writes_sent += message.params.bit_count()
            if not self._gate.open:
                self._disable = True  # it closed while the line took the write

    def _drop(self, message: DevWrite) -> None:
        count = message.params.bit_count()
        self.buffer.counters.writes_dropped += count
        self._gate.dropped(self._link.name, count)

    async def _send(self, data: bytes) -> None:
        await self._link.send(data)
        self.buffer.counters.frames_sent += 1

    async def _wait(self, seconds: float) -> None:
        """Wait until there may be something new to do."""
        self._idle = True
        try:
            with trio.move_on_after(seconds):
                await self._wake.wait()
        finally:
            self._idle = False
        self._wake = trio.Event()

    def _forget_writes(self) -> bool:
        try:
            count = self.buffer.discard_writes()
        except BufferBusyError:
            self._forget = True  # the sending task tries again, before it sends any value
            return False
        self._forget = False
        if count:
            self._gate.dropped(self._link.name, count)
        return True
