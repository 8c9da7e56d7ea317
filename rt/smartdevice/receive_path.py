"""The receive path of one Smart Device: stores its reports and delivers its answers.

Invariant: reports are stored in the order of their arrival. While another process holds the
    buffer's lock they wait here, and never block the event loop. What needs no buffer does not wait
    behind them.
"""

import collections
import enum
from typing import Final

import trio

from rt import log
from rt.errors import BufferBusyError, RemoteProtocolError
from rt.protocol import frames
from rt.protocol.message import DevData, Error, ErrorCode, HbReq, HbRes, Message, SubRes
from rt.smartdevice.pending_replies import PendingReplies
from rt.smartdevice.sender import BUSY_PAUSE, Sender

BUSY_TRIES: Final = 20
"""How often a busy buffer is tried, 1 ms apart."""


class Loss(enum.Enum):
    """Why an admitted device is no longer used: the event for the log and its remedy."""

    SILENT = ("device does not respond", "check its power, cable and firmware")
    NOT_REPORTING = (
        "device does not report its values",
        "it counts as disconnected until it reports; check its firmware",
    )
    RESTARTED = (
        "device restarted",
        "it was disabled; parameters such as gains and limits have to be written again",
    )
    REPLACED = ("another device answers on this line", "the previous device counts as disconnected")


class ReceivePath:
    """Handles what the device of one line sends.

    Args:
        port: The name of the line.
        sender: Answers heartbeat requests and has the buffer.

    Attributes:
        uid: The UID of the device whose reports are stored; None to store none.
        last_received: When the last intact frame was received, by trio's clock (s).
        lost: Set when the admitted device is lost; a new event with `admit`.
        loss: Why it is lost.
        identification_count: How often the admitted device has sent its UID and subscription.
        identifications: The answers to pings and subscriptions (key 0).
        heartbeats: When heartbeat requests were answered, by trio's clock (s); the keys are their
            ids.
    """

    def __init__(self, port: str, sender: Sender) -> None:
        self.uid: int | None = None
        self.last_received = trio.current_time()
        self.lost = trio.Event()
        self.loss = Loss.SILENT
        self.identification_count = 0
        self.identifications: PendingReplies[SubRes] = PendingReplies(port)
        self.heartbeats: PendingReplies[float] = PendingReplies(port)
        self._port = port
        self._sender = sender
        self._reader = frames.FrameReader()
        # At most the content of one chunk of data.
        self._backlog: collections.deque[DevData | SubRes] = collections.deque()
        self._errors: set[int] = set()
        self._expected = 0
        self._reported = trio.lowlevel.ParkingLot()

    def admit(self, uid: int | None) -> None:
        """Store the reports of this device from now on; of none if None."""
        if uid is not None:
            self.lost = trio.Event()
        self.uid = uid

    def mark_lost(self, loss: Loss) -> None:
        """Mark the admitted device as lost; only the first reason counts."""
        if not self.lost.is_set():
            self.loss = loss
            self.lost.set()

    async def wait_reported(self, params: int) -> None:
        """Wait until a device that is not admitted has reported all parameters of a bitmap.

        Their values are not stored.
        """
        self._expected = params
        try:
            await self._reported.park()
        finally:
            self._expected = 0

    def feed(self, data: bytes) -> bool:
        """Handle received data.

        Return False if the buffer is busy and `drain_backlog` has to follow.
        """
        for item in self._reader.feed(data):
            counters = self._sender.buffer.counters
            if isinstance(item, RemoteProtocolError):
                counters.bad_frames += 1
                continue
            counters.frames_received += 1
            self.last_received = trio.current_time()
            if not isinstance(item, (DevData, SubRes)):
                self._handle(item)
            elif self._backlog or not self._store(item):
                self._backlog.append(item)
        return not self._backlog

    async def drain_backlog(self) -> None:
        """Store the backlog.

        A report is retried for some ms; then its values are counted as dropped.
        """
        while self._backlog:
            message = self._backlog[0]
            for _ in range(BUSY_TRIES):
                if self._store(message):
                    break
                await trio.sleep(BUSY_PAUSE)
            else:
                self._sender.buffer.counters.updates_dropped += 1
                if isinstance(message, SubRes):
                    self.identifications.answer(0, message)
            self._backlog.popleft()
            self.last_received = trio.current_time()

    def _store(self, message: DevData | SubRes) -> bool:
        """Store a report; return False if the buffer is busy and nothing was done."""
        buffer = self._sender.buffer
        if self.uid is not None:
            if type(message) is SubRes and message.uid != self.uid:
                self.mark_lost(Loss.REPLACED)  # its values do not belong in this buffer
            else:
                try:
                    buffer.update(message)
                except RemoteProtocolError:
                    buffer.counters.bad_frames += 1
                    return True
                except BufferBusyError:
                    return False
                self.identification_count += type(message) is SubRes
        elif self._expected and type(message) is DevData:
            self._expected &= ~message.params
            if not self._expected:
                self._reported.unpark_all()
        if type(message) is SubRes:
            self.identifications.answer(0, message)
        return True

    def _handle(self, message: Message) -> None:
        """Handle a message that is not a report."""
        if isinstance(message, HbReq):
            self._sender.answer_heartbeat(message.id)
        elif isinstance(message, HbRes):
            self.heartbeats.answer(message.id, trio.current_time())
        elif isinstance(message, Error):
            if message.code == ErrorCode.BACKOFF:
                self._sender.back_off()
            else:
                self._note_error(message.code)
        else:  # a message that is only sent to devices
            self._sender.buffer.counters.bad_frames += 1

    def _note_error(self, code: int) -> None:
        """Count an error that the device reports; log each code once."""
        self._sender.buffer.counters.errors_received += 1
        if code not in self._errors:
            self._errors.add(code)
            log.get_logger().debug(
                "device reports an error", port=self._port, uid=str(self.uid), code=int(code)
            )
