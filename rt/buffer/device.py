"""The buffer of a Smart Device: values, subscription, pending reads and writes, and counters."""

import ctypes
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from rt.buffer import mutex
from rt.buffer.buffer import Buffer
from rt.buffer.clock import boottime_ns
from rt.buffer.lease import ALL_TOKENS
from rt.catalog import Peripheral
from rt.errors import RemoteProtocolError
from rt.protocol.message import (
    INTERVAL_MAX,
    PARAMS_MAX,
    VALUES_MAX,
    DevData,
    DevRead,
    DevWrite,
    SubReq,
    SubRes,
)
from rt.protocol.uid import BaseStructure, DeviceUID

_try_lock = mutex.try_lock
_unlock = mutex.unlock
_time = time.time


class Counters(BaseStructure):
    """Counts of a device's line since its buffer was created.

    Only the device process counts. A torn read of one number is harmless, so no lock is taken and
    no transaction rolls counters back.
    """

    _fields_ = (
        ("frames_received", ctypes.c_uint64),
        ("frames_sent", ctypes.c_uint64),
        ("bad_frames", ctypes.c_uint64),
        ("writes_sent", ctypes.c_uint64),
        ("writes_dropped", ctypes.c_uint64),
        ("updates_dropped", ctypes.c_uint64),
        ("disables", ctypes.c_uint64),
        ("connects", ctypes.c_uint64),
        ("errors_received", ctypes.c_uint64),
    )


class Outgoing(NamedTuple):
    """A message to a device, and the bitmap of the fencing tokens of its writes (0 for a read)."""

    message: DevRead | DevWrite
    tokens: int


class DeviceBuffer(Buffer):
    """The buffer of a Smart Device."""

    _counters = (("counters", Counters),)

    def __init__(self, memory: Any) -> None:
        super().__init__(memory)
        view: Any = self._view
        self.counters: Counters = view.counters
        self.dropped_tokens = 0
        self._all_params = (1 << len(self.params)) - 1
        self._received_bytes = memoryview(view.received).cast("B")
        self._sent_bytes = memoryview(view.sent).cast("B")

    @property
    def uid(self) -> DeviceUID:
        """The device's UID, from its last subscription response."""
        uid: Any = self._view.uid
        return DeviceUID(uid.device_id, uid.year, uid.random)

    @property
    def subscription(self) -> list[str]:
        """The names of the parameters that the device reports."""
        return self.peripheral.names(self._view.subscription)

    @property
    def interval(self) -> float:
        """The granted time between two reports (s); 0 without a subscription."""
        return float(self._view.interval) / 1000

    @property
    def granted(self) -> tuple[int, int]:
        """The bitmap of the reported parameters and the report interval (ms), as last granted."""
        view: Any = self._view
        return view.subscription, view.interval

    @property
    def receive_counts(self) -> Sequence[int]:
        """How often each parameter was received, by id; a live view."""
        counts: Sequence[int] = self._received
        return counts

    @property
    def last_update(self) -> float:
        """When the last value was received (s since the epoch); 0 before the first."""
        return float(self._header.last_update)

    @property
    def last_write(self) -> float:
        """When the last value was sent to the device (s since the epoch); 0 before the first."""
        return float(self._header.last_write)

    def read(self, params: Iterable[str] | None = None, /) -> None:
        """Request that parameters are read from the device; all readable ones if None.

        Raises:
            DeviceError: A name is unknown, or a parameter is not readable.
            BufferBusyError: Another process holds the lock.
        """
        bitmap = self.peripheral.read_bitmap(params)
        with self._lock:
            self._header.pending_read |= bitmap
        if self.write_event is not None:
            self.write_event.signal()

    def get_read(self) -> list[str]:
        """Return the names of the parameters to read, and clear the request."""
        with self._lock:
            bitmap, self._header.pending_read = self._header.pending_read, 0
        return self.peripheral.names(bitmap)

    def discard_writes(self, tokens: int = ALL_TOKENS) -> int:
        """Discard pending writes.

        Args:
            tokens: The bitmap of the fencing tokens of the writes to discard; the others stay.

        Returns:
            The number of discarded parameters, which is added to ``counters.writes_dropped``.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            discarded = self._header.pending & self._written_under(tokens)
            self._header.pending &= ~discarded
        dropped = int(discarded).bit_count()
        self.counters.writes_dropped += dropped
        return dropped

    def emit_dev_rw(self) -> list[DevRead | DevWrite]:
        """Return the messages for the requests since the last call: reads, then writes.

        Raises:
            BufferBusyError: Another process holds the lock; nothing is lost.
        """
        return [outgoing.message for outgoing in self.take_dev_rw()]

    def take_dev_rw(self, allowed: Callable[[], int] = lambda: ALL_TOKENS) -> list[Outgoing]:
        """Return the messages of `emit_dev_rw` with their fencing tokens, if these are allowed.

        Writes with other tokens are discarded and counted in ``counters.writes_dropped``; the
        bitmap of their tokens is stored in `dropped_tokens`.

        Args:
            allowed: Returns the bitmap of the allowed tokens. It is called with the lock held: a
                process begins its lease before it writes, so no write is discarded because its
                lease has only just begun.

        Raises:
            BufferBusyError: Another process holds the lock; nothing is lost.
        """
        self.dropped_tokens = 0
        with self._lock:
            header = self._header
            read, header.pending_read = header.pending_read, 0
            pending, header.pending = header.pending, 0
            taken = (
                [Outgoing(DevRead(known), 0)]
                if (known := read & self._all_params & PARAMS_MAX)
                else []
            )
            if pending:
                passing = allowed()
                for token, bitmap in self._by_token(pending).items():
                    if not passing >> token & 1:
                        self.counters.writes_dropped += bitmap.bit_count()
                        self.dropped_tokens |= 1 << token
                        continue
                    parts = self._packing.split(bitmap, VALUES_MAX)
                    taken += [
                        Outgoing(DevWrite(part, self._collect(self._write_bytes, part)), 1 << token)
                        for part in parts
                    ]
                header.last_write = _time()
        return taken

    def count_sent(self, message: DevRead | DevWrite) -> None:
        """Count a message that was handed to the line. Only the device process calls this."""
        self.counters.frames_sent += 1
        if isinstance(message, DevWrite):
            self.counters.writes_sent += message.params.bit_count()
            _count(self._sent_bytes, message.params)

    def emit_dev_data(self) -> list[DevData]:
        """Return the messages with the values received since the last call, for emulated devices.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            updated, self._header.updated = self._header.updated & self.peripheral.readable, 0
            return self._data(updated)

    def emit_subscription(self) -> list[DevData]:
        """Return the messages with the values of the subscribed parameters, for emulated devices.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            return self._data(self._view.subscription)

    def make_sub_req(
        self, params: Iterable[str] | None = None, interval: float | None = None
    ) -> SubReq:
        """Return a subscription request.

        Args:
            params: Names of parameters; the catalog's subscription if None.
            interval: Time between two reports (s, rounded to ms, at least 1 ms); the catalog's if
                None. 0 ends the subscription.

        Raises:
            DeviceError: A name is unknown.
            OverflowError: The interval does not fit 16 bits of milliseconds, or is not a number.
        """
        bitmap = self.peripheral.subscribed if params is None else self.peripheral.bitmap(params)
        milliseconds = (self.peripheral.sub_interval if interval is None else interval) * 1000
        if not 0 <= milliseconds <= INTERVAL_MAX:
            raise OverflowError(
                f"interval {milliseconds:g} ms out of range: use 0 to {INTERVAL_MAX} ms"
            )
        return SubReq(bitmap, max(1, round(milliseconds)) if milliseconds else 0)

    def make_sub_res(self) -> SubRes:
        """Return the device's subscription, as the device would report it."""
        view: Any = self._view
        return SubRes(view.subscription, view.interval, int(self.uid))

    def update(self, message: DevData | SubRes, /) -> None:
        """Store the contents of a message from the device.

        Raises:
            RemoteProtocolError: The message does not match the device's parameters; nothing
                changes.
            BufferBusyError: Another process holds the lock; nothing changes.

        Examples:
            >>> from rt import catalog
            >>> from rt.buffer import BufferStore
            >>> store = BufferStore(catalog.load(), "", shared=False)
            >>> switch = store.get_or_open(int(DeviceUID(0, 7, 1)))
            >>> switch.valid = True
            >>> switch.update(DevData(0b101, bytes((1, 0))))
            >>> switch.get_update()
            {'switch0': True, 'switch2': False}
        """
        if isinstance(message, SubRes):
            uid = DeviceUID.from_int(message.uid)
            view: Any = self._view
            with self._lock:
                view.subscription = message.params & self._all_params
                view.interval = message.interval
                view.uid = uid
            return
        bitmap, data = message.params, message.data
        length, slices = self._packing.slices(bitmap)
        if length != len(data) or bitmap & ~self._all_params:
            raise RemoteProtocolError(
                f"expected {length} bytes of values from a {self.name}, got {len(data)}",
                params=bitmap,
                length=len(data),
            )
        block, header, journal = self._update_bytes, self._header, self._journal
        # An inlined transaction, because this is the hot path of the device process.
        result = _try_lock(self._address)
        if result:
            self._mutex.resolve(result)
        try:
            alone = not header.depth
            if alone:
                journal.begin()
            for start, position, size in slices:
                block[start : start + size] = data[position : position + size]
            header.updated |= bitmap
            # Before `_wake`, because woken processes read the counters.
            _count(self._received_bytes, bitmap)
            header.last_update = _time()
            header.update_stamp = boottime_ns()
            if header.watchers:
                self._wake()
            if alone:
                journal.end()
        finally:
            _unlock(self._address)

    def _data(self, bitmap: int) -> list[DevData]:
        return [
            DevData(part, self._collect(self._update_bytes, part))
            for part in self._packing.split(bitmap, VALUES_MAX)
        ]

    def _by_token(self, bitmap: int) -> dict[int, int]:
        """Group parameters by the fencing token of their last write."""
        parts: dict[int, int] = {}
        for id_, token in enumerate(self._tokens):
            if bitmap >> id_ & 1:
                parts[token] = parts.get(token, 0) | 1 << id_
        return parts

    def _written_under(self, tokens: int) -> int:
        """Return the bitmap of the parameters that were last written with one of these tokens."""
        return sum(1 << id_ for id_, token in enumerate(self._tokens) if tokens >> token & 1)

    def _collect(self, block: memoryview, bitmap: int) -> bytes:
        _, slices = self._packing.slices(bitmap)
        return b"".join(block[run.block : run.block + run.length] for run in slices)


@functools.lru_cache(maxsize=1024)
def _ones(bitmap: int) -> int:
    """Return a 1 in each 64-bit field of the parameters of a bitmap."""
    return sum(1 << 64 * id_ for id_ in range(bitmap.bit_length()) if bitmap >> id_ & 1)


def _count(counters: memoryview, bitmap: int) -> None:
    """Add 1 to the 64-bit counters of the parameters of a bitmap.

    It adds to all counters as one number, which is many times faster than one by one.
    """
    total = int.from_bytes(counters, "little") + _ones(bitmap)
    size = len(counters)
    if total >> 8 * size:
        total = 0  # team code overwrote the counters; they cannot reach 2**64
    counters[:] = total.to_bytes(size, "little")


_STATE = (("uid", DeviceUID), ("subscription", ctypes.c_uint16), ("interval", ctypes.c_uint16))


def device_type(peripheral: Peripheral) -> type[DeviceBuffer]:
    """Return the buffer type of a Smart Device of the catalog."""
    return DeviceBuffer.make_type(
        peripheral.name, peripheral.params, *_STATE, peripheral=peripheral
    )


NullDevice = device_type(Peripheral(name="null-device"))
"""A buffer type without parameters, for use before the device is known."""
