"""One Smart Device as seen from the robot: found, subscribed to, read, heard, disabled.

Whatever the device says is taken in at once, into the device's buffer, and in order; the sender's task is the only one that sends.
However a client ends, its device gets a last DEV_DISABLE if the line still takes it.
"""

import contextlib
from collections.abc import Callable
from typing import Final

import trio

from rt import log
from rt.buffer import BufferStore, DeviceBuffer
from rt.buffer.lease import ALL_MARKS
from rt.errors import BufferBusyError, DeviceError
from rt.protocol.message import PARAMS_MAX, DevRead, HbReq, Message, Ping, SubReq, SubRes
from rt.smartdevice.discovery import DISCOVERY_TIMEOUT, PING_INTERVAL, greeting, open_buffer
from rt.smartdevice.intake import BUSY_TRIES, Intake
from rt.smartdevice.link import Link, LinkGoneError
from rt.smartdevice.receiver import Receiver
from rt.smartdevice.sender import BUSY_PAUSE, DISABLE_FRAME, Gate, Sender
from rt.smartdevice.subscriptions import Subscriptions

ANSWER_TIMEOUT: Final = 1.0
FAREWELL_TIMEOUT: Final = 0.1
WRITE_INTERVAL: Final = 0.04
_LIFE_IDS: Final = (255, 254)
"""Ids of the heartbeat requests that no caller asked for; the running number of the others stays below."""


class SmartDeviceClient:
    """A Smart Device from the upstream end.

    Args:
        link: The line to the device; closed when `run` ends.
        gate: Says whether writes may be sent.
        write_interval: Least time between two rounds of writes in s, unless the catalog has one for the device.
        receiver: Receives from the link; one of its own if None.

    Attributes:
        link: As above.
        uid: The device's UID, or None until it is discovered.
        ended: Set when `run` has ended.
    """

    def __init__(
        self, link: Link, gate: Gate, *, write_interval: float = WRITE_INTERVAL, receiver: Receiver | None = None
    ) -> None:
        self.link = link
        self.uid: int | None = None
        self.ended = trio.Event()
        self._receiver = receiver or Receiver()
        self._subscriptions = Subscriptions()
        self._outdated = False
        self._found: tuple[DeviceBuffer, SubRes] | None = None
        self._write_interval = write_interval
        self._sender = Sender(link, gate, write_interval)
        self._intake = Intake(link.name, self._sender)
        self._heartbeat_id = 0
        self._scope: trio.CancelScope | None = None
        self._dropped = False
        self._log = log.get_logger()

    @property
    def buffer(self) -> DeviceBuffer:
        """The device's buffer; a private one without parameters until the device is admitted."""
        return self._sender.buffer

    @property
    def lost(self) -> trio.Event:
        """Set when the admitted device has fallen silent, or another one answers in its place; a new event with `admit`."""
        return self._intake.lost

    @property
    def heard(self) -> float:
        """When the last intact frame was taken in, by trio's clock (s)."""
        return self._intake.heard

    @heard.setter
    def heard(self, time: float) -> None:
        self._intake.heard = time

    @property
    def drivers(self) -> int:
        """The bitmap of the marks of the writes that the device has been sent since it was disabled last."""
        return self._sender.drivers

    @property
    def wished(self) -> bool:
        """Whether somebody has asked for reports beside the catalog."""
        return self._subscriptions.present is not None

    async def run(self) -> None:
        """Talk to the device, and return when it is gone or the link was closed.

        However it ends, the buffer becomes invalid, a last DEV_DISABLE is tried (at most 0.1 s, also when cancelled), and the
        link is closed.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self._dropped:
                    nursery.cancel_scope.cancel()
                nursery.start_soon(self._read)
                nursery.start_soon(self._sender.run)
        except* (LinkGoneError, trio.ClosedResourceError):
            pass
        finally:
            for exchange in (self._intake.greetings, self._intake.heartbeats, self._sender.disables):
                exchange.close()
            with trio.CancelScope(shield=True):
                with trio.move_on_after(FAREWELL_TIMEOUT), contextlib.suppress(LinkGoneError, trio.ClosedResourceError):
                    await self.link.send(DISABLE_FRAME)
                    self.buffer.counters.disables += 1
                await self._leave()
                await self.link.aclose()
            self.ended.set()

    async def drop(self) -> None:
        """End `run`, with its last DEV_DISABLE, and wait for that."""
        self._dropped = True
        if self._scope is not None:
            self._scope.cancel()
        await self.ended.wait()

    async def discover(
        self, store: BufferStore, *, interval: float = PING_INTERVAL, within: float = DISCOVERY_TIMEOUT
    ) -> int:
        """Ask the device who it is until it answers, open its buffer, and return its UID. `run` must be running.

        Nothing of the device comes into the buffer before `admit`.

        Args:
            store: Where the buffer is opened.
            interval: Time between two pings in s.
            within: How long to try in s.

        Raises:
            DeviceError: No answer in time (`NoAnswerError`), the device is gone, or the catalog does not know it (the context
                has `device_id`).
        """
        answer = await greeting(
            lambda within: self.ping(within=within), self.link.name, interval=interval, within=within
        )
        self._found = open_buffer(store, answer, self.link.name), answer
        if answer.uid != self.uid:
            self._subscriptions.clear()
        self.uid = answer.uid
        return answer.uid

    async def admit(self) -> None:
        """Take the discovered buffer into use: what the device says comes into it, and it becomes valid.

        What was written to it before is forgotten: a device that comes back does not go on with old commands. Tried again for
        as long as another process holds the lock.
        """
        if self._found is None:
            raise RuntimeError("a device is admitted after it was discovered")
        buffer, answer = self._found
        before = self.buffer.counters
        for name, *_ in before._fields_:
            setattr(buffer.counters, name, getattr(buffer.counters, name) + getattr(before, name))
        buffer.counters.connects += 1
        self._sender.buffer = buffer
        self._intake.admit(self.uid)
        self._sender.write_interval = buffer.peripheral.write_interval or self._write_interval
        while True:
            with contextlib.suppress(BufferBusyError):
                buffer.discard_writes()
                buffer.update(answer)
                buffer.valid = True
                return
            await trio.sleep(BUSY_PAUSE)

    async def release(self) -> None:
        """Take the buffer out of use, as when the device has fallen silent; `discover` and `admit` make a new start.

        The buffer becomes invalid, what was to be written is forgotten, and a DEV_DISABLE is sent.
        """
        await self._leave()
        self._sender.disable()
        self._sender.buffer = type(self.buffer).private()
        self._intake.admit(None)
        self._found = None

    def ask_for_life(self) -> None:
        """Send a heartbeat request that nobody waits for, unless the line takes none; disturbs no `heartbeat`."""
        for heartbeat_id in _LIFE_IDS:
            if not self._intake.heartbeats.awaited(heartbeat_id):
                with contextlib.suppress(DeviceError):
                    self._sender.request(HbReq(heartbeat_id))
                return

    def lose(self) -> None:
        """Take note that the device is silent."""
        self._intake.lost.set()

    async def ping(self, *, within: float = ANSWER_TIMEOUT) -> SubRes:
        """Ask the device who it is.

        Raises:
            DeviceError: No answer in time (`NoAnswerError`), or the device is gone.
        """
        return await self._ask(Ping(), within)

    async def subscribe(
        self,
        params: list[str] | None = None,
        interval: float | None = None,
        *,
        visit: int | None = None,
        within: float = ANSWER_TIMEOUT,
    ) -> SubRes:
        """Ask for reports of parameters.

        Args:
            params: Names of parameters; those of the catalog if None.
            interval: Time between two reports in s, the catalog's if None; 0 ends the subscription.
            visit: The visit that this is for, see `end_visits`; None for good.
            within: How long to wait for the answer in s.

        Returns:
            What the device granted.

        Raises:
            OverflowError: The interval does not fit 16 bits of milliseconds.
            DeviceError: A name is unknown, no answer in time, or the device is gone.
        """
        request = self.buffer.make_sub_req(params, interval)
        # In the order in which the device is asked, and also if the answer is lost: it may have heard it.
        self._subscriptions.add(request, visit)
        return await self._subscribe(request, within)

    async def resubscribe(self, *, within: float = ANSWER_TIMEOUT) -> SubRes:
        """Ask for what counts now, which is what was asked for last, or what the catalog says; raises like `subscribe`."""
        answer = await self._subscribe(self._subscriptions.present or self.buffer.make_sub_req(), within)
        self._outdated = False
        return answer

    async def unsubscribe(self, *, within: float = ANSWER_TIMEOUT) -> SubRes:
        """End the subscription; raises like `subscribe`."""
        request = SubReq(PARAMS_MAX, 0)
        self._subscriptions.add(request)
        return await self._ask(request, within)

    def end_visits(self, is_over: Callable[[int], bool]) -> bool:
        """Forget the subscriptions of visits that are over; True if another one counts now, until `resubscribe` was answered."""
        self._outdated |= self._subscriptions.end(is_over)
        return self._outdated

    async def _subscribe(self, request: SubReq, within: float) -> SubRes:
        deadline = trio.current_time() + within
        answer = await self._ask(request, within)
        # An answer to an earlier ping says that nothing is subscribed: the one to this request is still to come.
        while request.params and request.interval and not answer.interval:
            answer = await self._intake.greetings.wait(0, max(deadline - trio.current_time(), 0.0))
        return answer

    def read(self, params: list[str] | None = None) -> None:
        """Ask for parameters once; the values come into the buffer.

        Raises:
            DeviceError: A name is unknown or not readable, or too many requests wait.
        """
        self._sender.request(DevRead(self.buffer.peripheral.read_bitmap(params)))

    async def heartbeat(self, heartbeat_id: int | None = None, *, within: float = ANSWER_TIMEOUT) -> float:
        """Ask for a sign of life and return the round-trip time in s.

        Args:
            heartbeat_id: 0 to 255; the next of a running number if None.
            within: How long to wait in s.

        Raises:
            OverflowError: The id does not fit 8 bits.
            DeviceError: No answer in time, or the device is gone.
        """
        start = trio.current_time()
        return await self._intake.heartbeats.wait(self.send_heartbeat(heartbeat_id), within) - start

    def send_heartbeat(self, heartbeat_id: int | None = None) -> int:
        """Ask for a sign of life without waiting; returns the id. Raises like `heartbeat`."""
        if heartbeat_id is None:
            self._heartbeat_id = heartbeat_id = (self._heartbeat_id + 1) % min(_LIFE_IDS)
        if not 0 <= heartbeat_id <= 0xFF:
            raise OverflowError(f"a heartbeat id of {heartbeat_id} does not fit 0 to 255")
        self._sender.request(HbReq(heartbeat_id))
        return heartbeat_id

    def request_disable(self, marks: int = ALL_MARKS) -> None:
        """Have the device disabled before anything else is sent, and forget the pending writes of these marks. Returns at once."""
        self._sender.disable(marks)

    async def disable(self, *, within: float = ANSWER_TIMEOUT) -> None:
        """Disable the device and return when DEV_DISABLE has been handed to the line.

        Raises:
            DeviceError: The line did not take it in time, or the device is gone.
        """
        self._sender.disable()
        await self._sender.disables.wait(0, within)

    def kick(self) -> None:
        """Look whether the buffer holds something to send; returns at once."""
        self._sender.kick()

    async def _ask(self, message: Message, within: float) -> SubRes:
        self._sender.request(message)
        return await self._intake.greetings.wait(0, within)

    async def _read(self) -> None:
        while True:
            await self._receiver.feed(self.link, self._intake.take)
            await self._intake.catch_up()

    async def _leave(self) -> None:
        if self._intake.uid is None:
            return  # the buffer is another link's
        for _ in range(BUSY_TRIES):
            with contextlib.suppress(BufferBusyError):
                self.buffer.valid = False
                self.buffer.discard_writes()
                return
            await trio.sleep(BUSY_PAUSE)
        self.buffer.invalidate_by_force()
        self._log.warning(
            "the Smart Device's buffer is marked invalid without its lock, which another process keeps",
            port=self.link.name,
            uid=str(self.uid),
        )
