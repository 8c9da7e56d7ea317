"""The log on the network: a hub that publishes what its process logs, with what other processes hand in.

Each event goes out as two frames, its level as the topic and a notification. The rules of this
module: a log call never waits for the network; a subscriber that does not keep up misses events and
nobody else does; and whatever is missed is known, since each event carries the number that it has
among those of its level.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio
import zmq

from rt import log
from rt.access.authenticator import Authenticator
from rt.errors import RemoteProtocolError
from rt.log import attribution
from rt.log.budget import Budget, Rate
from rt.logs.queue import LogQueue
from rt.protocol import logevent
from rt.transport.zmq_socket import Socket

SUBSCRIBER_EVENTS = 4000
"""Events that wait for one subscriber; what comes beyond them, that subscriber misses."""
QUEUE_EVENTS = 20_000
"""Events that a subscriber lets wait on its own side."""
INWARD_EVENTS = Rate(2000, 200)
INWARD_BYTES = Rate(1 << 20, 256e3)
"""How many events, and how many bytes of them, other processes may hand in at once and in each second after that."""
WARNING_INTERVAL = 5.0
"""Time between two events about the same trouble of the hub (s); what happens between them is counted."""
HELLO_TIMEOUT = 1.0
"""How long a publisher waits for the hub when it starts (s); until there is one, its events are lost."""

_BREATH = 64  # events after which other tasks get their turn
_SUBSCRIPTION_BYTES = 4096


class LogCounters(msgspec.Struct):
    """What a hub or a publisher has done.

    Attributes:
        published: Events that were handed to the transport.
        received: Events that other processes handed in.
        malformed: Messages of other processes that were no events.
        dropped: Events for which there was no room in the queue.
    """

    published: int = 0
    received: int = 0
    malformed: int = 0
    dropped: int = 0


class _LogSink:
    """Takes the events of this process and sends them on a socket."""

    def __init__(self, counters: LogCounters) -> None:
        self._counters = counters
        self._queue: LogQueue[tuple[bytes, bytes]] = LogQueue()
        self._numbers = dict.fromkeys(logevent.LEVELS, 0)
        # The thread that holds it may come again: a finalizer may log, and so may an object that is
        # asked for its text.
        self._lock = threading.RLock()

    def listener(self, event: Mapping[str, Any]) -> None:
        """Take an event, in any thread."""
        with self._lock:
            level = event["level"]
            # Also one that finds no room has its number: that is how a subscriber learns of it.
            number = self._numbers[level] = self._numbers[level] + 1
            frames = logevent.encode({**event, logevent.SEQUENCE: number})
            self._queue.put(frames, len(frames[1]))

    async def run(self, socket: Socket) -> None:
        """Send until cancelled, and then what is left."""
        last = -WARNING_INTERVAL
        try:
            while True:
                for count, frames in enumerate(await self._queue.take(), 1):
                    self._send(socket, frames)
                    if count % _BREATH == 0:
                        await trio.lowlevel.checkpoint()
                if self._queue.dropped and trio.current_time() - last >= WARNING_INTERVAL:
                    last = trio.current_time()
                    dropped, self._queue.dropped = self._queue.dropped, 0
                    self._counters.dropped += dropped
                    log.get_logger().warning(
                        "log events were not published: too many came at once", dropped=dropped
                    )
        finally:
            for frames in self._queue.take_nowait():
                self._send(socket, frames)

    def _send(self, socket: Socket, frames: tuple[bytes, bytes]) -> None:
        try:
            socket.send_nowait(frames)
        except trio.WouldBlock:  # a PUB always can; said for the day on which it cannot
            self._counters.dropped += 1
        else:
            self._counters.published += 1


class LogHub:
    """Publishes the events of this process and those that others hand in, which become events of this process.

    Args:
        frontend: Addresses where events are published.
        backend: Addresses where other processes hand events in, by PUB; none means that nobody can.
        gate: Through which it publishes: what of the frontend lies on the network is for stations
            with a key.

    Attributes:
        counters: What it has done.
        endpoints: The real addresses of the frontend, once it runs.
    """

    def __init__(
        self,
        frontend: Sequence[str],
        backend: Sequence[str] = (),
        *,
        authenticator: Authenticator | None = None,
    ) -> None:
        self.counters = LogCounters()
        self.endpoints: tuple[str, ...] = ()
        self._frontend = frontend
        self._backend = backend
        self._authenticator = authenticator
        self._log = log.get_logger()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish until cancelled; what was logged before the cancel is still sent.

        Raises:
            InstanceBusyError: Somebody else holds one of the addresses.
        """
        sink = _LogSink(self.counters)
        outwards: dict[int, int | bytes] = {
            zmq.SNDHWM: SUBSCRIBER_EVENTS,
            zmq.MAXMSGSIZE: _SUBSCRIPTION_BYTES,
        }
        inwards: dict[int, int | bytes] = {zmq.MAXMSGSIZE: logevent.MAX_EVENT}
        with Socket(zmq.PUB, options=outwards) as public, Socket(zmq.SUB, options=inwards) as inlet:
            inlet.subscribe(b"")
            if self._authenticator is None:
                self.endpoints = tuple([public.bind(address) for address in self._frontend])
                for address in self._backend:
                    inlet.bind(address)
            else:
                self.endpoints = self._authenticator.bind(public, self._frontend)
                self._authenticator.bind(inlet, self._backend, accepts_keys=False)
            async with trio.open_nursery() as nursery:
                with log.listening(sink.listener):
                    nursery.start_soon(self._fan_in, inlet)
                    task_status.started()
                    await sink.run(public)

    async def _fan_in(self, inlet: Socket) -> None:
        last, unsaid = -WARNING_INTERVAL, 0
        told = -WARNING_INTERVAL
        budget = Budget(INWARD_EVENTS, INWARD_BYTES, trio.current_time())
        while True:
            frames = await inlet.recv()
            try:
                event = logevent.decode(frames)
            except RemoteProtocolError as error:
                self.counters.malformed += 1
                unsaid += 1
                if trio.current_time() - last >= WARNING_INTERVAL:
                    self._log.warning(
                        "a message for the log was refused", reason=error.message, count=unsaid
                    )
                    last, unsaid = trio.current_time(), 0
                continue
            self.counters.received += 1
            if budget.take(len(frames[-1]), trio.current_time()):
                log.relay(attribution.from_hub(event))
            elif trio.current_time() - told >= WARNING_INTERVAL:
                self._log.warning(
                    "log events of other processes were suppressed: too many come",
                    suppressed=budget.suppressed,
                )
                told, budget.suppressed = trio.current_time(), 0


class LogPublisher:
    """Hands the events of this process in at a hub of another process.

    Args:
        address: Where the hub takes events in.

    Attributes:
        counters: What it has done.
    """

    def __init__(self, address: str) -> None:
        self.counters = LogCounters()
        self._address = address

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hand events in until cancelled; started when the hub listens, or after `HELLO_TIMEOUT` without one."""
        sink = _LogSink(self.counters)
        # An XPUB is a PUB that hears who subscribes: before the hub has, everything would be lost.
        with Socket(zmq.XPUB, options={zmq.SNDHWM: SUBSCRIBER_EVENTS}) as socket:
            socket.connect(self._address)
            with log.listening(sink.listener):
                with trio.move_on_after(HELLO_TIMEOUT):
                    await socket.recv()
                task_status.started()
                await sink.run(socket)
