"""The log hub, which publishes the events of its process and those that other processes submit.

Each event is published as two frames: its level, which is the topic, and a notification.

Invariant: a log call never waits for the network. A subscriber that is too slow misses events
without affecting others, and notices it, because the events of each level are numbered.
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
from rt.log.throttle import Throttle
from rt.logs.queue import LogQueue
from rt.protocol import logevent
from rt.transport.zmq_socket import Socket

SUBSCRIBER_EVENTS = 4000
"""Capacity of the queue for one subscriber, in events; the subscriber misses events beyond it."""
QUEUE_EVENTS = 20_000
"""Capacity of the queue on the side of a subscriber, in events."""
INWARD_EVENTS = Rate(2000, 200)
INWARD_BYTES = Rate(1 << 20, 256e3)
"""Limits of the events that other processes submit, in events and in bytes."""
WARNING_INTERVAL = 5.0
"""Minimum time between two warnings about the same problem (s)."""
HELLO_TIMEOUT = 1.0
"""Time that a publisher waits for the hub when it starts (s); without a hub its events are lost."""

_CHECKPOINT_EVENTS = 64  # events that are sent between two checkpoints
_SUBSCRIPTION_BYTES = 4096


class LogCounters(msgspec.Struct):
    """Counters of a hub or a publisher.

    Attributes:
        published: Events passed to the transport.
        received: Events submitted by other processes.
        malformed: Submitted messages that are not events.
        dropped: Events that did not fit into the queue.
    """

    published: int = 0
    received: int = 0
    malformed: int = 0
    dropped: int = 0


class _LogSink:
    """Sends the events of this process on a socket."""

    def __init__(self, counters: LogCounters) -> None:
        self._counters = counters
        self._queue: LogQueue[tuple[bytes, bytes]] = LogQueue()
        self._numbers = dict.fromkeys(logevent.LEVELS, 0)
        # Reentrant, because a finalizer or the `__repr__` of a value may log.
        self._lock = threading.RLock()

    def listener(self, event: Mapping[str, Any]) -> None:
        """Queue an event, in any thread."""
        with self._lock:
            level = event["level"]
            # An event that does not fit is numbered too, so that subscribers notice the gap.
            number = self._numbers[level] = self._numbers[level] + 1
            frames = logevent.encode({**event, logevent.SEQUENCE: number})
            self._queue.put(frames, len(frames[1]))

    async def run(self, socket: Socket) -> None:
        """Send until cancelled, then send the rest."""
        last = -WARNING_INTERVAL
        try:
            while True:
                for count, frames in enumerate(await self._queue.take(), 1):
                    self._send(socket, frames)
                    if count % _CHECKPOINT_EVENTS == 0:
                        await trio.lowlevel.checkpoint()
                if self._queue.dropped and trio.current_time() - last >= WARNING_INTERVAL:
                    last = trio.current_time()
                    dropped, self._queue.dropped = self._queue.dropped, 0
                    self._counters.dropped += dropped
                    log.get_logger().warning("log events not published", dropped=dropped)
        finally:
            for frames in self._queue.take_nowait():
                self._send(socket, frames)

    def _send(self, socket: Socket, frames: tuple[bytes, bytes]) -> None:
        try:
            socket.send_nowait(frames)
        except trio.WouldBlock:  # does not happen with a PUB
            self._counters.dropped += 1
        else:
            self._counters.published += 1


class LogHub:
    """Publishes the events of this process and of others, which become events of this process.

    Args:
        frontend: Addresses at which events are published.
        backend: Addresses at which other processes submit events with a PUB socket.
        authenticator: Binds the sockets; stations need a key for a frontend on the network.

    Attributes:
        counters: Counters.
        endpoints: Bound addresses of the frontend, once it runs.
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
        """Publish until cancelled; events logged before the cancel are still sent.

        Raises:
            InstanceBusyError: Another process holds one of the addresses.
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
                    nursery.start_soon(self._receive, inlet)
                    task_status.started()
                    await sink.run(public)

    async def _receive(self, inlet: Socket) -> None:
        refusals = Throttle(burst=1, interval=WARNING_INTERVAL, clock=trio.current_time)
        budget = Budget(
            INWARD_EVENTS, INWARD_BYTES, trio.current_time(), report_interval=WARNING_INTERVAL
        )
        while True:
            frames = await inlet.recv()
            refusals.flush()
            try:
                event = logevent.decode(frames)
            except RemoteProtocolError as error:
                self.counters.malformed += 1
                refusals.log(self._log.warning, "submitted log event refused", reason=error.message)
                continue
            self.counters.received += 1
            if budget.take(len(frames[-1]), trio.current_time()):
                log.relay(attribution.from_hub(event))
            if count := budget.report(trio.current_time()):
                self._log.warning("submitted log events suppressed", suppressed=count)


class LogPublisher:
    """Submits the events of this process to the hub of another process.

    Args:
        address: Address at which the hub accepts events.

    Attributes:
        counters: Counters.
    """

    def __init__(self, address: str) -> None:
        self.counters = LogCounters()
        self._address = address

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Submit events until cancelled; started when the hub listens, or after `HELLO_TIMEOUT`."""
        sink = _LogSink(self.counters)
        # An XPUB is a PUB that receives subscriptions; events before that of the hub would be lost.
        with Socket(zmq.XPUB, options={zmq.SNDHWM: SUBSCRIBER_EVENTS}) as socket:
            socket.connect(self._address)
            with log.listening(sink.listener):
                with trio.move_on_after(HELLO_TIMEOUT):
                    await socket.recv()
                task_status.started()
                await sink.run(socket)
