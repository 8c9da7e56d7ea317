"""The buffer of a Smart Device: its values, what is subscribed, what is to be read and written, and what came by on its line."""

import ctypes
import time
from collections.abc import Iterable
from typing import Any

from rt.buffer.buffer import BaseStructure, Buffer
from rt.buffer.uid import DeviceUID
from rt.catalog import Peripheral
from rt.errors import RemoteProtocolError
from rt.protocol.message import DevData, DevRead, DevWrite, SubReq, SubRes

_MAX_VALUES = 255 - 2
"""Bytes of values in one message: the payload less its bitmap."""

PARAM_BITS = 0xFFFF


class Counters(BaseStructure):
    """What came by on a device's line since its buffer was made.

    Only the device process writes them, and a torn read of one number costs nothing: no lock is taken.
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


class DeviceBuffer(Buffer):
    """A buffer that represents a Smart Device."""

    def __init__(self, memory: Any) -> None:
        super().__init__(memory)
        view: Any = self._view
        self.counters: Counters = view.counters
        self._known = (1 << len(self.params)) - 1

    @property
    def uid(self) -> DeviceUID:
        """The device's UID, as its last subscription response gave it."""
        uid: Any = self._view.uid
        return DeviceUID(uid.device_id, uid.year, uid.random)

    @property
    def subscription(self) -> list[str]:
        """The names of the parameters that the device reports."""
        return self.peripheral.names(self._view.subscription)

    @property
    def interval(self) -> float:
        """The time between two reports, as granted (s); 0 without a subscription."""
        return float(self._view.interval) / 1000

    @property
    def last_update(self) -> float:
        """When a value came in last (s since the epoch); 0 before the first."""
        return float(self._header.last_update)

    @property
    def last_write(self) -> float:
        """When a value was sent to the device last (s since the epoch); 0 before the first."""
        return float(self._header.last_write)

    def read(self, params: Iterable[str] | None = None, /) -> None:
        """Ask for parameters to be read from the device; all readable ones if None.

        Raises:
            DeviceError: A name is unknown.
            BufferBusyError: Another process holds the lock.
        """
        bitmap = self.peripheral.readable if params is None else self.peripheral.bitmap(params)
        with self._lock:
            self._header.pending_read |= bitmap
        if self.doorbell is not None:
            self.doorbell.ring()

    def get_read(self) -> list[str]:
        """The names of the parameters that are to be read, each given once."""
        with self._lock:
            bitmap, self._header.pending_read = self._header.pending_read, 0
        return self.peripheral.names(bitmap)

    def discard_writes(self) -> int:
        """Forget the writes that were asked for and not sent.

        Returns:
            How many parameters they were; they are counted in ``counters.writes_dropped``.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            dropped = int(self._header.pending).bit_count()
            self._header.pending = 0
        self.counters.writes_dropped += dropped
        return dropped

    def emit_dev_rw(self) -> list[DevRead | DevWrite]:
        """The messages that carry out what was asked for since the last call: reads, then writes.

        Raises:
            BufferBusyError: Another process holds the lock; nothing is lost.
        """
        with self._lock:
            header = self._header
            read, header.pending_read = header.pending_read, 0
            pending, header.pending = header.pending, 0
            messages: list[DevRead | DevWrite] = [DevRead(read & PARAM_BITS)] if read else []
            parts = self._block.split(pending, _MAX_VALUES)
            messages += [DevWrite(part, self._collect(self._write_bytes, part)) for part in parts]
            if pending:
                header.last_write = time.time()
        return messages

    def emit_dev_data(self) -> list[DevData]:
        """The messages that carry the values that came in since the last call; for whoever plays a device.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            updated, self._header.updated = self._header.updated & self.peripheral.readable, 0
            return self._data(updated)

    def emit_subscription(self) -> list[DevData]:
        """The messages that carry the values of the subscribed parameters; for whoever plays a device.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            return self._data(self._view.subscription)

    def make_sub_req(self, params: Iterable[str] | None = None, interval: float | None = None) -> SubReq:
        """A request for reports.

        Args:
            params: Names of parameters; those that the catalog subscribes to if None.
            interval: Time between two reports (s), the catalog's if None; 0 ends the subscription.

        Raises:
            DeviceError: A name is unknown.
            OverflowError: The interval does not fit 16 bits of milliseconds.
        """
        bitmap = self.peripheral.subscribed if params is None else self.peripheral.bitmap(params)
        milliseconds = round((self.peripheral.sub_interval if interval is None else interval) * 1000)
        if not 0 <= milliseconds <= PARAM_BITS:
            raise OverflowError(f"an interval of {milliseconds} ms does not fit 0 to {PARAM_BITS}")
        return SubReq(bitmap, milliseconds)

    def make_sub_res(self) -> SubRes:
        """The subscription of the device, as it would report it."""
        view: Any = self._view
        return SubRes(view.subscription, view.interval, int(self.uid))

    def update(self, message: DevData | SubRes, /) -> None:
        """Take in what the device said.

        Raises:
            RemoteProtocolError: The message does not fit the device's parameters; nothing is changed.
            BufferBusyError: Another process holds the lock; nothing is changed.
        """
        if isinstance(message, SubRes):
            uid = DeviceUID.from_int(message.uid)
            view: Any = self._view
            with self._lock:
                view.subscription = message.params & self._known
                view.interval = message.interval
                view.uid = uid
            return
        bitmap, data = message.params, message.data
        length, slices = self._block.slices(bitmap)
        if length != len(data) or bitmap & ~self._known:
            raise RemoteProtocolError(
                f"the values of a {self.name} take {length} bytes, not {len(data)}", params=bitmap, length=len(data)
            )
        block, header = self._update_bytes, self._header
        with self._lock:
            for start, position, size in slices:
                block[start : start + size] = data[position : position + size]
            header.updated |= bitmap
            self._stamp_update()

    def _data(self, bitmap: int) -> list[DevData]:
        return [
            DevData(part, self._collect(self._update_bytes, part)) for part in self._block.split(bitmap, _MAX_VALUES)
        ]

    def _collect(self, block: memoryview, bitmap: int) -> bytes:
        _, slices = self._block.slices(bitmap)
        return b"".join(block[run.block : run.block + run.length] for run in slices)


_STATE = (
    ("counters", Counters),
    ("uid", DeviceUID),
    ("subscription", ctypes.c_uint16),
    ("interval", ctypes.c_uint16),
)


def device_type(peripheral: Peripheral) -> type[DeviceBuffer]:
    """The type of the buffers of a Smart Device of the catalog."""
    return DeviceBuffer.make_type(peripheral.name, peripheral.params, *_STATE, peripheral=peripheral)


NullDevice = device_type(Peripheral(name="null-device"))
"""A buffer type without parameters, for where a buffer is needed before the device is known."""
