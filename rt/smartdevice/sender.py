"""Sends to one Smart Device, and decides in which order.

One task sends, and chooses what to send next: DEV_DISABLE first, then answers to heartbeat
requests, then requests, then the values that were written to the buffer. A DEV_DISABLE waits for
nothing but the frame that is already being sent.

Invariant: a DEV_WRITE is sent only if the write guard allows, at that moment, the leases under
    which its values were written. If their lease ends while the frame is being sent, a DEV_DISABLE
    follows. What was moved under a lease that has ended is disabled before anything is written
    under another.
"""

import collections
import math
from typing import Final, Protocol

import trio

from rt import log
from rt.buffer import DeviceBuffer, NullDevice
from rt.buffer.device import Outgoing
from rt.buffer.lease import ALL_TOKENS
from rt.errors import BufferBusyError, DeviceError
from rt.link.link import Link, LinkGoneError
from rt.protocol import frames
from rt.protocol.message import DevDisable, DevWrite, HbRes, Message
from rt.smartdevice.pending_replies import PendingReplies

BACKOFF_TIME: Final = 1.0
"""How long the write interval stays doubled after a device asked to be sent less, in s."""

BUSY_PAUSE: Final = 0.001
"""Time until a busy buffer is tried again, in s."""

SEND_TIMEOUT: Final = 2.0
"""How long a frame may wait for the line until the line is closed, in s.

Frames behind it, a DEV_DISABLE among them, cannot pass; a line that is opened again begins with a
DEV_DISABLE. Closing resets no board: DTR stays up, because dropping it blocks on a board that
hangs.
"""

DISABLE_FRAME: Final = frames.encode(DevDisable())
_MAX_HEARTBEAT_REPLIES: Final = 16
_MAX_REQUESTS: Final = 64


class WriteGuard(Protocol):
    """Decides whose writes may be sent."""

    @property
    def allowed(self) -> int:
        """The bitmap of the tokens of the leases under which writes may be sent at this moment."""

    def note_dropped(self, port: str, count: int, tokens: int) -> None:
        """Log that writes of ``count`` parameters under leases with these tokens were dropped."""


class Sender:
    """Sends to one device. Its methods return at once; `run` does the work.

    Args:
        link: The line to the device.
        guard: Decides which writes may be sent.
        write_interval: Least time between two rounds of reads and writes, in s; may be changed.

    Attributes:
        buffer: The source of reads and writes; its counters are updated.
        active_tokens: The bitmap of the tokens of the writes that may have been sent to the device
            since its last DEV_DISABLE.
        disables: Answered with None whenever a DEV_DISABLE was written to the line (key 0).
    """

    def __init__(self, link: Link, guard: WriteGuard, write_interval: float) -> None:
        self.buffer: DeviceBuffer = NullDevice.private()
        self.write_interval = write_interval
        self.active_tokens = 0
        self.disables: PendingReplies[None] = PendingReplies(link.name)
        self._link = link
        self._guard = guard
        self._wake = trio.Event()
        self._disable = False
        self._disabling = 0
        self._pending_discards = 0
        self._dirty = False
        self._idle = False
        # At most one round of the buffer.
        self._values: collections.deque[Outgoing] = collections.deque()
        self._next_write = 0.0
        self._backoff_until = 0.0
        self._heartbeat_replies: collections.deque[int] = collections.deque(
            maxlen=_MAX_HEARTBEAT_REPLIES
        )  # a flood loses the oldest
        self._requests: collections.deque[Message] = collections.deque()

    @property
    def may_move(self) -> bool:
        """Whether writes were sent to the device since the line last took a DEV_DISABLE."""
        return bool(self.active_tokens or self._disabling)

    def disable(self, tokens: int = ALL_TOKENS) -> None:
        """Send DEV_DISABLE before anything else, and discard pending writes of these tokens."""
        self._disable = True
        self._discard_writes(tokens)
        remaining = [outgoing for outgoing in self._values if not outgoing.tokens & tokens]
        for outgoing in self._values:
            if outgoing.tokens & tokens:
                self._drop(outgoing)
        self._values = collections.deque(remaining)
        self._wake.set()

    def answer_heartbeat(self, heartbeat_id: int) -> None:
        """Answer a heartbeat request, at once if the line takes it."""
        if not self._try_send(HbRes(heartbeat_id)):
            self._heartbeat_replies.append(heartbeat_id)
            self._wake.set()

    def request(self, message: Message) -> None:
        """Send a message in its turn: at once if nothing else is queued and the line takes it.

        Raises:
            DeviceError: The queue of requests is full because the device accepts no data.
        """
        if len(self._requests) >= _MAX_REQUESTS:
            raise DeviceError(
                f"{self._link.name}: too many requests are waiting ({_MAX_REQUESTS})",
                port=self._link.name,
            )
        if not self._try_send(message):
            self._requests.append(message)
            self._wake.set()

    def flush(self) -> None:
        """Check whether the buffer holds something to send.

        What may be sent at once is on the line when this returns.
        """
        if not self.buffer.dirty:
            return
        self._dirty = True
        if self.active_tokens & ~self._guard.allowed:
            self._disable = True
        elif self._is_idle and not self._pending_discards and self._collect() == 0:
            while self._values and self._try_send_value(self._values[0]):
                self._count(self._values.popleft(), self.buffer)
        if self._dirty or self._values or self._disable:
            self._wake.set()

    def back_off(self) -> None:
        """Halve the write rate for `BACKOFF_TIME`."""
        self._backoff_until = trio.current_time() + BACKOFF_TIME

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            LinkGoneError: The device is gone, or the line accepts no data.
        """
        # A process that was killed may have left half a frame on the line, and a device that moves.
        await self._transmit(frames.DELIMITER)
        self._disable = True
        while True:
            if self._disable:
                self._disable = False
                self._disabling |= self.active_tokens
                self.active_tokens = 0
                await self._send(DISABLE_FRAME)
                self._disabling = 0
                self.buffer.counters.disables += 1
                self.disables.answer(0, None)
            elif self._heartbeat_replies:
                await self._send(frames.encode(HbRes(self._heartbeat_replies.popleft())))
            elif self._requests:
                await self._send(frames.encode(self._requests.popleft()))
            elif self._values:
                await self._send_value()
            else:
                delay = self._poll_buffer()
                if delay > 0:
                    await self._wait(delay)

    def _poll_buffer(self) -> float:
        """Take what the buffer holds, and return the time after which to try again (s)."""
        if self._pending_discards:
            return 0 if self._discard_writes(self._pending_discards) else BUSY_PAUSE
        return self._collect() if self._dirty else math.inf

    def _collect(self) -> float:
        """Take reads and writes out of the buffer if it is time.

        Return 0, or the time to wait (s).
        """
        now = trio.current_time()
        if now < self._next_write:
            return self._next_write - now
        try:
            before = self.buffer.counters.writes_dropped
            self._values.extend(self.buffer.take_dev_rw(lambda: self._guard.allowed))
            dropped = self.buffer.counters.writes_dropped - before
        except BufferBusyError:
            return BUSY_PAUSE
        if dropped:
            self._guard.note_dropped(self._link.name, dropped, self.buffer.dropped_tokens)
        self._dirty = False
        self._next_write = now + self.write_interval * (2 if now < self._backoff_until else 1)
        return 0

    @property
    def _is_idle(self) -> bool:
        """Whether the sending task waits and nothing is queued: only then may others send."""
        return self._idle and not self._wake.is_set()

    def _try_send(self, message: Message) -> bool:
        sent = self._is_idle and not self._values and self._link.send_nowait(frames.encode(message))
        self.buffer.counters.frames_sent += sent
        return sent

    def _try_send_value(self, outgoing: Outgoing) -> bool:
        """Send a value if the line takes it at this moment."""
        # Even if it is refused: the line may have taken all but the last delimiter, which comes
        # with the next frame.
        self.active_tokens |= outgoing.tokens
        return self._link.send_nowait(frames.encode(outgoing.message))

    async def _send_value(self) -> None:
        allowed = self._guard.allowed
        if self.active_tokens & ~allowed:
            self._disable = True
            return
        outgoing = self._values.popleft()
        if outgoing.tokens & ~allowed:
            self._drop(outgoing)
        else:
            buffer = self.buffer  # it may be replaced during the send
            self.active_tokens |= outgoing.tokens
            await self._transmit(frames.encode(outgoing.message))
            self._count(outgoing, buffer)

    def _count(self, outgoing: Outgoing, buffer: DeviceBuffer) -> None:
        buffer.count_sent(outgoing.message)
        if outgoing.tokens & ~self._guard.allowed:
            self._disable = True  # the lease ended during the send

    def _drop(self, outgoing: Outgoing) -> None:
        if isinstance(outgoing.message, DevWrite):
            count = outgoing.message.params.bit_count()
            self.buffer.counters.writes_dropped += count
            self._guard.note_dropped(self._link.name, count, outgoing.tokens)

    async def _send(self, data: bytes) -> None:
        await self._transmit(data)
        self.buffer.counters.frames_sent += 1

    async def _transmit(self, data: bytes) -> None:
        with trio.move_on_after(SEND_TIMEOUT):
            await self._link.send(data)
            return
        log.get_logger().warning(
            "device stopped accepting data; closing the port", port=self._link.name
        )
        raise LinkGoneError(f"{self._link.name} stopped accepting data", port=self._link.name)

    async def _wait(self, seconds: float) -> None:
        """Wait until there may be something new to do, at most so many seconds."""
        self._idle = True
        try:
            with trio.move_on_after(seconds):
                await self._wake.wait()
        finally:
            self._idle = False
        self._wake = trio.Event()

    def _discard_writes(self, tokens: int) -> bool:
        try:
            count = self.buffer.discard_writes(tokens)
        except BufferBusyError:
            self._pending_discards |= (
                tokens  # the sending task tries again before it sends any value
            )
            return False
        self._pending_discards = 0
        if count:
            self._guard.note_dropped(self._link.name, count, tokens)
        return True
