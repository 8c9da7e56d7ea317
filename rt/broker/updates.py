"""Device updates: datagrams with the values of all connected devices.

A datagram is sent every ``interval`` seconds and contains the parameters of each device that were
received since the last one. Once a second it contains all parameters, for new listeners. A datagram
that would be too long is split.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import trio

from rt.buffer import BufferStore, DeviceBuffer
from rt.errors import BufferBusyError, DeviceBufferError
from rt.protocol import datagrams

FULL_INTERVAL = 1.0
"""Time between two updates with all readable parameters (s)."""
DATAGRAM_BYTES = 60_000
"""Maximum size of an encoded update; a datagram may have 65507 bytes."""
EMPTY_INTERVAL = 0.5
"""Time between two updates (s) while no device is connected."""
SCAN_INTERVAL = 1.0
"""Time between two scans for new devices (s)."""

_TOLERANCE = 1e-6
Update = dict[int, dict[str, Any]]


class Publisher(Protocol):
    """Sends datagrams, such as ``rt.remote.DatagramNode``."""

    async def send(self, peer: bytes, payload: bytes, /) -> None:
        """Send one datagram."""


class UpdatePublisher:
    """Publishes the buffers of Smart Devices.

    Args:
        store: The buffers.
        publisher: Sends the updates.
        interval: Time between two updates (s).
        max_bytes: Maximum size of an encoded update of several devices.

    Attributes:
        sent: Number of datagrams sent.
        skipped: Number of devices left out of an update because their buffer was in use.
    """

    def __init__(
        self,
        store: BufferStore,
        publisher: Publisher,
        interval: float,
        max_bytes: int = DATAGRAM_BYTES,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._interval = interval
        self._max_bytes = max_bytes
        self._last_full: dict[int, float] = {}
        self._last_scan = -SCAN_INTERVAL
        self._devices: Mapping[int, DeviceBuffer] = {}
        self.sent = 0
        self.skipped = 0

    async def run(self) -> None:
        """Publish at absolute deadlines until cancelled; missed deadlines are skipped.

        Deadlines are multiples of the interval, like those of the root's heartbeat, so that the
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
        """Return the next update: UID -> parameter -> value of all connected devices."""
        now = trio.current_time()
        update: Update = {}
        if now - self._last_scan >= SCAN_INTERVAL:
            self._last_scan = now
            self._devices = self._store.devices()
        for uid, buffer in self._devices.items():
            if buffer.valid:
                with contextlib.suppress(DeviceBufferError):  # it has disconnected meanwhile
                    update[uid] = self._values(uid, buffer, now)
        self._last_full = {uid: when for uid, when in self._last_full.items() if uid in update}
        return update

    def _values(self, uid: int, buffer: DeviceBuffer, now: float) -> dict[str, Any]:
        # Send all values now if the next update would be too late.
        full = (
            now + self._interval
            > self._last_full.get(uid, -FULL_INTERVAL) + FULL_INTERVAL + _TOLERANCE
        )
        try:
            values = buffer.get_update()
            if full:
                values = buffer.snapshot()
        except BufferBusyError:
            # Changed values may be lost, so the next update contains all values.
            self._last_full.pop(uid, None)
            self.skipped += 1
            return {}
        if full:
            self._last_full[uid] = now
        return {
            name: value for name, value in values.items() if isinstance(value, (bool, int, float))
        }

    def _payloads(self, update: Update) -> Iterator[bytes]:
        """Yield the encoded update, split into halves until each is short enough."""
        payload = datagrams.encode_devices(update)
        if len(payload) <= self._max_bytes or len(update) < 2:
            yield payload
            return
        items = list(update.items())
        middle = len(items) // 2
        yield from self._payloads(dict(items[:middle]))
        yield from self._payloads(dict(items[middle:]))
