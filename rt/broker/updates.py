"""Device updates: what the devices say, to whoever listens.

Every ``interval`` seconds one datagram names every connected device with the parameters that came
in since the last; once a second it carries all of them, so that a listener who has just come knows
everything soon. A datagram that would be too long is sent as several.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import trio

from rt import log
from rt.buffer import BufferStore, DeviceBuffer
from rt.errors import BufferBusyError, DeviceBufferError
from rt.protocol import control

FULL_INTERVAL = 1.0
"""Time between two updates that carry every readable parameter (s)."""
DATAGRAM_BYTES = 60_000
"""Encoded bytes of one update at most; a datagram carries 65507."""
EMPTY_INTERVAL = 0.5
"""Time between two updates (s) while no device is connected."""
SCAN_INTERVAL = 1.0
"""Time between two looks for devices that are new (s)."""

_TOLERANCE = 1e-6
Update = dict[int, dict[str, Any]]


class Publisher(Protocol):
    """Sends datagrams; ``rt.remote.DatagramNode`` is one."""

    async def send(self, peer: bytes, payload: bytes, /) -> None:
        """Send one datagram."""


class UpdatePublisher:
    """Publishes the buffers of Smart Devices.

    Args:
        store: The buffers.
        publisher: Where updates go.
        interval: Time between two updates (s).

    Attributes:
        sent: Datagrams sent so far.
    """

    def __init__(self, store: BufferStore, publisher: Publisher, interval: float) -> None:
        self._store = store
        self._publisher = publisher
        self._interval = interval
        self._log = log.get_logger()
        self._last_full: dict[int, float] = {}
        self._last_scan = -SCAN_INTERVAL
        self._devices: Mapping[int, DeviceBuffer] = {}
        self.sent = 0
        self.skipped = 0

    async def run(self) -> None:
        """Publish on absolute deadlines until cancelled; a late update is not made up for.

        They are multiples of the interval, as those of the root's sign of life are, so that the
        process wakes once for both.
        """
        now = trio.current_time()
        deadline = now - now % self._interval
        while True:
            update = self.collect()
            for payload in self._payloads(update):
                await self._publisher.send(b"", payload)
                self.sent += 1
            interval = self._interval if update else max(self._interval, EMPTY_INTERVAL)
            deadline = max(deadline + interval, trio.current_time())
            await trio.sleep_until(deadline)

    def collect(self) -> Update:
        """The next update: UID -> parameter -> value of every connected device."""
        now = trio.current_time()
        update: Update = {}
        if now - self._last_scan >= SCAN_INTERVAL:
            self._last_scan = now
            self._devices = self._store.devices()
        for uid, buffer in self._devices.items():
            if buffer.valid:
                with contextlib.suppress(DeviceBufferError):  # it has left since
                    update[uid] = self._values(uid, buffer, now)
        self._last_full = {uid: when for uid, when in self._last_full.items() if uid in update}
        return update

    def _values(self, uid: int, buffer: DeviceBuffer, now: float) -> dict[str, Any]:
        # The next update would be too late for it.
        full = (
            now + self._interval
            > self._last_full.get(uid, -FULL_INTERVAL) + FULL_INTERVAL + _TOLERANCE
        )
        try:
            values = buffer.get_update()
            if full:
                values = buffer.snapshot()
        except BufferBusyError:
            # What has changed may be known to nobody now: the next update says everything.
            self._last_full.pop(uid, None)
            self.skipped += 1
            return {}
        if full:
            self._last_full[uid] = now
        return {
            name: value for name, value in values.items() if isinstance(value, (bool, int, float))
        }

    def _payloads(self, update: Update) -> Iterator[bytes]:
        """The update encoded: one datagram, or as many halves of it as are short enough."""
        payload = control.encode_devices(update)
        if len(payload) <= DATAGRAM_BYTES or len(update) < 2:
            yield payload
            return
        items = list(update.items())
        middle = len(items) // 2
        yield from self._payloads(dict(items[:middle]))
        yield from self._payloads(dict(items[middle:]))
