"""The client of one Smart Device: discovers, subscribes to, reads, pings and disables it.

What the device sends is stored in its buffer at once and in order. Only the sender's task sends.

Invariant: however a client ends, its device gets a last DEV_DISABLE if the line still takes it.
"""

import contextlib
import itertools
import math
from collections.abc import Callable
from typing import Final

import trio

from rt import log
from rt.buffer import BufferStore, DeviceBuffer
from rt.errors import BufferBusyError, DeviceError
from rt.link.link import Link, LinkGoneError
from rt.log.throttle import Throttle
from rt.protocol.message import PARAMS_MAX, DevRead, HbReq, Ping, SubReq, SubRes
from rt.smartdevice.discovery import DISCOVERY_TIMEOUT, PING_INTERVAL, identify, open_buffer
from rt.smartdevice.pending_replies import NoAnswerError
from rt.smartdevice.receive_path import BUSY_TRIES, Loss, ReceivePath
from rt.smartdevice.receiver import Receiver
from rt.smartdevice.reports import LOST_AFTER, Reports, Verdict
from rt.smartdevice.sender import BUSY_PAUSE, DISABLE_FRAME, Sender, WriteGuard
from rt.smartdevice.subscriptions import Subscriptions

ANSWER_TIMEOUT: Final = 1.0
WRITE_INTERVAL: Final = 0.04
SETTLE_TIME: Final = 1.0
"""Time after a request for reports in which answers to earlier requests may still come, in s."""
IDLE_PING_INTERVAL: Final = 5.0
"""Time between two pings of a device that reports nothing, in s: another one may have replaced it.
"""
RENEW_INTERVAL: Final = 0.5
"""Least time between two renewals of a subscription, in s."""
LOG_SILENCE_AFTER: Final = 2.0
"""A gap in the reports of at least this length is logged when it is over, in s."""
MAX_TIMEOUT_FACTOR: Final = 5
"""Largest factor by which repeated time-outs of an answer grow. A slow device must not be asked
faster than it answers.
"""
_PROBE_IDS: Final = (255, 254)
"""Ids of the heartbeat requests that no caller asked for; ids of other requests stay below."""


class SmartDeviceClient:
    """The client of one Smart Device.

    Args:
        link: The line to the device; closed when `run` ends.
        guard: Decides which writes may be sent.
        write_interval: Least time between two rounds of writes in s, unless the catalog has one for
            the device.
        receiver: Receives from the link; a new one if None.
        throttle: Limits what is logged about the device; a new one if None.
        on_closing: Called before `run` closes the link, when the device has taken a last
            DEV_DISABLE or is dead.

    Attributes:
        sender: Sends to the device.
        uid: The device's UID, or None until it is discovered.
        ended: Set when `run` has ended.
        missing: The bitmap of the subscribed parameters that the device stopped reporting, if it
            was lost for that reason.
    """

    def __init__(
        self,
        link: Link,
        guard: WriteGuard,
        *,
        write_interval: float = WRITE_INTERVAL,
        receiver: Receiver | None = None,
        throttle: Throttle | None = None,
        on_closing: Callable[[], None] = lambda: None,
    ) -> None:
        self.link = link
        self.uid: int | None = None
        self.ended = trio.Event()
        self._receiver = receiver or Receiver()
        self.missing = 0
        self._on_closing = on_closing
        self._subscriptions = Subscriptions()
        self._subscription_outdated = False
        self._reports = Reports()
        self._catalog_request = SubReq(0, 0)
        self._readable = 0
        self._granted: tuple[int, int] | None = None
        self._subscribing = 0
        self._unanswered: int | None = None
        self._requested_at = self._pinged_at = -math.inf
        self._longest_silence = 0.0
        self._throttle = throttle or Throttle("port", clock=trio.current_time)
        self._discovered: tuple[DeviceBuffer, SubRes] | None = None
        self._write_interval = write_interval
        self.sender = Sender(link, guard, write_interval)
        self._receive_path = ReceivePath(link.name, self.sender)
        self._heartbeat_id = 0
        self._scope: trio.CancelScope | None = None
        self._drop_requested = False
        self._log = log.get_logger()

    @property
    def buffer(self) -> DeviceBuffer:
        """The device's buffer; a private one without parameters until the device is admitted."""
        return self.sender.buffer

    @property
    def lost(self) -> trio.Event:
        """Set when the admitted device is lost, see `loss`; a new event with `admit`."""
        return self._receive_path.lost

    @property
    def loss(self) -> Loss:
        """Why the device is lost."""
        return self._receive_path.loss

    @property
    def last_received(self) -> float:
        """When the last intact frame was received, by trio's clock (s)."""
        return self._receive_path.last_received

    @last_received.setter
    def last_received(self, time: float) -> None:
        self._receive_path.last_received = time

    @property
    def wanted(self) -> int:
        """The bitmap of the parameters that the admitted device should report."""
        return self._wanted.params & self._readable if self._wanted.interval else 0

    @property
    def has_request(self) -> bool:
        """Whether a caller has subscribed, in addition to the catalog."""
        return self._subscriptions.current is not None

    async def run(self) -> None:
        """Run the device; return when it is gone or the link was closed.

        However this ends, it sends a last DEV_DISABLE (which takes up to
        `rt.brake.output_queue.TIME_LIMIT`, also when cancelled), makes the buffer invalid and
        closes the link.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self._drop_requested:
                    nursery.cancel_scope.cancel()
                nursery.start_soon(self._read)
                nursery.start_soon(self.sender.run)
        except* (LinkGoneError, trio.ClosedResourceError):
            pass
        finally:
            for replies in (
                self._receive_path.identifications,
                self._receive_path.heartbeats,
                self.sender.disables,
            ):
                replies.close()
            with trio.CancelScope(shield=True):
                await self._disable_last()
                self._on_closing()
                await self._invalidate_buffer()
                await self.link.aclose()
            self.ended.set()

    async def _disable_last(self) -> None:
        """Send the last DEV_DISABLE."""
        with contextlib.suppress(LinkGoneError, trio.ClosedResourceError):
            if await self.link.send_last(DISABLE_FRAME):
                self.buffer.counters.disables += 1
            else:
                self._warn("device accepted no last DEV_DISABLE; closing its full line")

    async def drop(self) -> None:
        """End `run`, with its last DEV_DISABLE, and wait until it has ended."""
        self._drop_requested = True
        if self._scope is not None:
            self._scope.cancel()
        await self.ended.wait()

    async def discover(
        self,
        store: BufferStore,
        *,
        interval: float = PING_INTERVAL,
        within: float = DISCOVERY_TIMEOUT,
    ) -> int:
        """Ping the device until it answers, open its buffer, and return its UID.

        `run` must be running. Nothing that the device sends is stored in the buffer before `admit`.

        Args:
            store: Where the buffer is opened.
            interval: Time between two pings in s.
            within: How long to try in s.

        Raises:
            DeviceError: No answer in time (`NoAnswerError`), the device is gone, or the catalog
                does not contain it (the context has `device_id`).
        """
        answer = await identify(
            lambda: self.ping(within=interval), self.link.name, interval=interval, within=within
        )
        self._discovered = await open_buffer(store, answer, self.link.name, within=within), answer
        if answer.uid != self.uid:
            self._subscriptions.clear()
            self.missing = 0
        self.uid = answer.uid
        return answer.uid

    async def admit(self) -> None:
        """Store what the device sends in the discovered buffer from now on, and make it valid.

        Earlier writes in the buffer are discarded: a device that comes back does not continue with
        old commands. Waits while another process holds the buffer's lock.
        """
        if self._discovered is None:
            raise RuntimeError("admit() requires discover()")
        buffer, answer = self._discovered
        self.missing = 0
        self._granted = self._unanswered = None
        self._readable = buffer.peripheral.readable
        self._catalog_request = buffer.make_sub_req()
        self._reports = Reports()
        before = self.buffer.counters
        for name, *_ in before._fields_:
            setattr(buffer.counters, name, getattr(buffer.counters, name) + getattr(before, name))
        buffer.counters.connects += 1
        self.sender.buffer = buffer
        self._receive_path.admit(self.uid)
        self.sender.write_interval = buffer.peripheral.write_interval or self._write_interval
        while True:
            with contextlib.suppress(BufferBusyError):
                buffer.discard_writes()
                buffer.update(answer)
                buffer.valid = True
                return
            await trio.sleep(BUSY_PAUSE)

    async def release(self) -> None:
        """Stop using the buffer, as when the device fell silent.

        `discover` and `admit` start again.

        The buffer becomes invalid, pending writes are discarded, and a DEV_DISABLE is sent.
        """
        await self._invalidate_buffer()
        self.sender.disable()
        self.sender.buffer = type(self.buffer).private()
        self._receive_path.admit(None)
        self._discovered = None

    def send_probe(self) -> None:
        """Send a heartbeat request without waiting for the answer, unless the line takes none.

        Does not interfere with `heartbeat`.
        """
        for heartbeat_id in _PROBE_IDS:
            if not self._receive_path.heartbeats.is_awaited(heartbeat_id):
                with contextlib.suppress(DeviceError):
                    self.sender.request(HbReq(heartbeat_id))
                return

    def mark_lost(self, loss: Loss = Loss.SILENT) -> None:
        """Mark the device as lost; only the first reason counts."""
        self._receive_path.mark_lost(loss)

    def ignore_gap(self, seconds: float) -> None:
        """Do not count ``seconds`` as silence: this process did not read the line meanwhile."""
        self.last_received += seconds
        self._reports.ignore_gap(seconds)

    def check_reports(self, now: float) -> None:
        """Check whether the device reports what it granted.

        Renews the subscription or tokens the device as lost if it does not. Returns at once and
        never raises.

        Args:
            now: The current time by trio's clock, in s.
        """
        if self._receive_path.uid is None or self.lost.is_set() or self._subscribing:
            return
        if (
            self._unanswered is not None
            and self._unanswered == self._receive_path.identification_count
        ):
            # What it reports is unknown: the answer to the last request was lost.
            if now - self._requested_at >= LOST_AFTER + ANSWER_TIMEOUT:
                self.mark_not_reporting(self.wanted)
            self._ping(now)
        elif not self.wanted:
            self._granted = None
            self._reports.expect(0, 0.0, (), now)
            if now - self._pinged_at >= IDLE_PING_INTERVAL:
                self._ping(now)
        elif not self._compare(now):
            self._receive_path.mark_lost(Loss.RESTARTED)
        else:
            self._judge(now)

    def mark_not_reporting(self, params: int) -> None:
        """Mark the device as lost because it does not report the parameters of a bitmap."""
        self.missing = params
        self._receive_path.mark_lost(Loss.NOT_REPORTING)

    def _judge(self, now: float) -> None:
        """Handle missing reports of subscribed parameters: ping, renew or token as lost."""
        match self._reports.check(self.buffer.receive_counts, now):
            case Verdict.LOST:
                self.mark_not_reporting(self._reports.silent)
            case Verdict.RENEW:
                self._renew(now)
            case Verdict.ASK:
                self._ping(now)
            case Verdict.REPORTING if self._longest_silence >= LOG_SILENCE_AFTER:
                self._warn(
                    "device reports again after its subscription was renewed",
                    silence=round(self._longest_silence, 2),
                )
        self._longest_silence = self._reports.silence if self._reports.silent else 0.0

    def _compare(self, now: float) -> bool:
        """Compare what the device last said about its subscription with what it granted.

        Returns:
            False if the device has forgotten its subscription.
        """
        params, interval = self.buffer.granted
        params &= self._readable
        stated = (params, interval) if params and interval else None
        granted = self._granted
        is_settled = now - self._requested_at >= SETTLE_TIME
        if stated is None:
            if granted is not None:
                return not is_settled
            self._reports.expect(
                self.wanted, self._wanted.interval / 1000, self.buffer.receive_counts, now
            )
            self._renew(now)
        elif granted is None or (not is_settled and not granted[0] & ~params):
            if stated != granted:
                self._granted = stated
                self._reports.expect(params, interval / 1000, self.buffer.receive_counts, now)
        elif stated != granted and is_settled:
            self._warn(
                "device changed its subscription; renewing it",
                params=self.buffer.peripheral.names(params),
                interval=interval / 1000,
            )
            self._renew(now)
        return True

    @property
    def _wanted(self) -> SubReq:
        """The subscription that the device should have."""
        return self._subscriptions.current or self._catalog_request

    def _renew(self, now: float) -> None:
        """Send the subscription again without waiting for the answer."""
        if now - self._requested_at >= RENEW_INTERVAL:
            self._requested_at = now
            with contextlib.suppress(DeviceError):
                self.sender.request(self._wanted)

    def _ping(self, now: float) -> None:
        """Ping the device, unless a task already waits for the answer: UID and subscription."""
        self._pinged_at = now
        if not self._receive_path.identifications.is_awaited(0):
            with contextlib.suppress(DeviceError):
                self.sender.request(Ping())

    async def wait_reporting(self) -> bool:
        """Wait until a discovered device reports the parameters that it had stopped reporting.

        Returns:
            Whether it reports them. If not, the device has to be discovered again.

        Raises:
            DeviceError: The line accepts no data, or the device is gone.
        """
        if self._discovered is None:
            raise RuntimeError("wait_reporting() requires discover()")
        buffer, _ = self._discovered
        readable = buffer.peripheral.readable
        for tries in itertools.count(1):
            request = self._subscriptions.current or buffer.make_sub_req()
            missing = self.missing & request.params & readable if request.interval else 0
            if not missing:
                return True
            timeout = ANSWER_TIMEOUT * min(tries, MAX_TIMEOUT_FACTOR)
            try:
                answer = await self._subscribe(request, timeout)
            except NoAnswerError:
                return False
            if answer.uid != self.uid:
                return False
            with trio.move_on_after(timeout + 2 * answer.interval / 1000):
                await self._receive_path.wait_reported(answer.params & readable | missing)
                return True
        raise AssertionError

    async def ping(self, *, within: float = ANSWER_TIMEOUT) -> SubRes:
        """Ping the device and return its answer: its UID and its subscription.

        Raises:
            DeviceError: No answer in time (`NoAnswerError`), or the device is gone.
        """
        self.sender.request(Ping())
        return await self._receive_path.identifications.wait(0, within)

    async def subscribe(
        self,
        params: list[str] | None = None,
        interval: float | None = None,
        *,
        session: int | None = None,
    ) -> SubRes:
        """Subscribe to reports of parameters.

        Args:
            params: Names of parameters; those of the catalog if None.
            interval: Time between two reports in s, the catalog's if None; 0 ends the subscription.
            session: The session that the subscription belongs to, see `end_sessions`; permanent if
                None.

        Returns:
            What the device granted.

        Raises:
            OverflowError: The interval does not fit 16 bits of milliseconds.
            DeviceError: A name is unknown, no answer in time, or the device is gone.
        """
        request = self.buffer.make_sub_req(params, interval)
        # Recorded in the order of the requests, and even if the answer is lost: the device may have
        # received the request.
        self._subscriptions.add(request, session)
        return await self._subscribe(request, ANSWER_TIMEOUT)

    async def resubscribe(self, *, within: float = ANSWER_TIMEOUT) -> SubRes:
        """Send the wanted subscription: the last request or the catalog's.

        Raises like `subscribe`.
        """
        answer = await self._subscribe(self._wanted, within)
        self._subscription_outdated = False
        return answer

    async def unsubscribe(self) -> SubRes:
        """End the subscription; raises like `subscribe`."""
        request = SubReq(PARAMS_MAX, 0)
        self._subscriptions.add(request)
        return await self._subscribe(request, ANSWER_TIMEOUT)

    def end_sessions(self, is_over: Callable[[int], bool]) -> bool:
        """Forget the subscriptions of sessions that have ended.

        Returns:
            Whether another subscription is current; True until `resubscribe` has been answered.
        """
        self._subscription_outdated |= self._subscriptions.end(is_over)
        return self._subscription_outdated

    async def _subscribe(self, request: SubReq, within: float) -> SubRes:
        self._requested_at = trio.current_time()
        self._subscribing += 1
        self._granted = None
        self._unanswered = self._receive_path.identification_count
        try:
            self.sender.request(request)
            # An answer to an earlier ping reports no subscription; the one to this request follows.
            return await self._receive_path.identifications.wait(
                0,
                within,
                lambda answer: bool(answer.interval or not (request.params and request.interval)),
            )
        finally:
            self._subscribing -= 1

    def read(self, params: list[str] | None = None) -> None:
        """Request parameters once; their values are stored in the buffer.

        Raises:
            DeviceError: A name is unknown or not readable, or too many requests are waiting.
        """
        self.sender.request(DevRead(self.buffer.peripheral.read_bitmap(params)))

    async def heartbeat(
        self, heartbeat_id: int | None = None, *, within: float = ANSWER_TIMEOUT
    ) -> float:
        """Send a heartbeat request and return the round-trip time in s.

        Args:
            heartbeat_id: 0 to 255; the next of a running number if None.
            within: How long to wait in s.

        Raises:
            OverflowError: The id does not fit 8 bits.
            DeviceError: No answer in time, or the device is gone.
        """
        start = trio.current_time()
        return (
            await self._receive_path.heartbeats.wait(self.send_heartbeat(heartbeat_id), within)
            - start
        )

    def send_heartbeat(self, heartbeat_id: int | None = None) -> int:
        """Send a heartbeat request without waiting, and return its id. Raises like `heartbeat`."""
        if heartbeat_id is None:
            self._heartbeat_id = heartbeat_id = (self._heartbeat_id + 1) % min(_PROBE_IDS)
        if not 0 <= heartbeat_id <= 0xFF:
            raise OverflowError(f"heartbeat id must be 0 to 255, not {heartbeat_id}")
        self.sender.request(HbReq(heartbeat_id))
        return heartbeat_id

    async def disable(self) -> None:
        """Disable the device and return when DEV_DISABLE has been written to the line.

        Raises:
            DeviceError: The line did not take it in time, or the device is gone.
        """
        self.sender.disable()
        await self.sender.disables.wait(0, ANSWER_TIMEOUT)

    def _warn(self, event: str, **context: object) -> None:
        about = {"port": self.link.name, "uid": str(self.uid)}
        self._throttle.log(self._log.warning, event, **about, **context)

    async def _read(self) -> None:
        while True:
            await self._receiver.receive(self.link, self._receive_path.feed)
            await self._receive_path.drain_backlog()

    async def _invalidate_buffer(self) -> None:
        if self._receive_path.uid is None:
            return  # the buffer belongs to another link
        for _ in range(BUSY_TRIES):
            with contextlib.suppress(BufferBusyError):
                self.buffer.valid = False
                self.buffer.discard_writes()
                return
            await trio.sleep(BUSY_PAUSE)
        self.buffer.invalidate_without_lock()
        self._log.warning(
            "device buffer invalidated without its lock, which another process holds",
            port=self.link.name,
            uid=str(self.uid),
        )
