"""The values of one peripheral, shared between processes.

A buffer holds the newest value of every parameter. Every operation takes the buffer's mutex, waits
at most ``lock_timeout`` seconds for it, and touches nothing else: it takes a microsecond, not a
round trip. An operation of several steps is a transaction: it takes effect completely or not at
all, even if its process is killed.
"""

import contextlib
import ctypes
import math
import time
from collections.abc import Mapping
from typing import Any

from rt.buffer import mutex
from rt.buffer.base import BaseBuffer
from rt.buffer.clock import boottime_ns
from rt.buffer.layout import to_array, to_python
from rt.buffer.transaction import not_connected
from rt.catalog import Parameter, unknown_parameter
from rt.errors import DeviceBufferError

_try_lock = mutex.try_lock
_unlock = mutex.unlock


class Buffer(BaseBuffer):
    """The data of one peripheral.

    Create a type with ``make_type``, and instances with ``open`` or ``attach``.
    """

    @property
    def age(self) -> float:
        """Time (s) since the last value was received; infinite if there was none.

        The clock continues while the machine is suspended.
        """
        stamp = self._header.update_stamp
        now = boottime_ns()
        return (now - stamp) / 1e9 if 0 < stamp <= now else math.inf

    @property
    def dirty(self) -> bool:
        """Whether a requested write or read is still to be sent; read without the lock."""
        header = self._header
        return bool(header.pending or header.pending_read)

    def transaction(self) -> contextlib.AbstractContextManager[BaseBuffer]:
        """Return a context manager that makes several operations take effect together.

        It holds the lock and is reentrant; never hold it across an ``await``. An exception restores
        the state from before the outermost transaction.

        Raises:
            BufferBusyError: Another process holds the lock.
            DeviceBufferError: The buffer is not valid.

        Examples:
            >>> from rt.buffer import BufferStore
            >>> from rt import catalog
            >>> motor = BufferStore(catalog.load(), "", shared=False).get_or_open(12 << 72)
            >>> motor.valid = True
            >>> with motor.transaction():
            ...     motor.set("enc_pos", 90.0)
            ...     motor.set("enc_vel", 45.0)
            >>> motor.get_update()
            {'enc_pos': 90.0, 'enc_vel': 45.0}
        """
        return self._transaction

    async def changed(self, *params: str) -> frozenset[str]:
        """Wait until one of these parameters (any by default) is received; a checkpoint.

        Values received since the calling task's last call, or since this process opened the buffer,
        are returned at once. A parameter received several times is returned once. Cancellation
        loses nothing.

        Returns:
            The parameters received; empty if instead the peripheral came or went (see ``valid``).

        Raises:
            DeviceBufferError: A parameter is unknown, or this process has no wakeups.
        """
        ids = {self._descriptor(name).id: name for name in params or self.params}
        if self.wakeups is None:
            raise DeviceBufferError(
                f"cannot wait for the {self.name}: this process has no wakeups", device=self.name
            )
        return frozenset(ids[changed] for changed in await self._watch.changed(ids, self.wakeups))

    def get(self, param: str, /) -> Any:
        """Return the newest value of a readable parameter: a bool, int or float, or a list of them.

        Raises:
            DeviceBufferError: The parameter is unknown or not readable, or the buffer is not valid.
            BufferBusyError: Another process holds the lock.
        """
        if param not in self._readable:
            raise self._unusable(param, "readable")
        result = _try_lock(self._address)
        if result:
            self._mutex.resolve(result)
        try:
            if not self._header.valid:
                raise not_connected(self.name)
            value = getattr(self._updates, param)
            return to_python(value) if isinstance(value, ctypes.Array) else value
        finally:
            _unlock(self._address)

    def set(self, param: str, value: Any, /) -> None:
        """Store a value in the update block, as received from the peripheral.

        Raises:
            DeviceBufferError: The parameter is unknown.
            TypeError: The value has the wrong type.
            BufferBusyError: Another process holds the lock.
        """
        descriptor = self._descriptor(param)
        value = self._storable(descriptor, value)
        # A simple value is one atomic store.
        with self._lock if descriptor.is_simple else self._steps:
            self._store(descriptor, value)
            self._stamp_update()

    def set_all(self, values: Mapping[str, Any]) -> None:
        """Store several values as received from the peripheral; readers see all of them or none."""
        checked = [(self._descriptor(name), value) for name, value in values.items()]
        stored = [(descriptor, self._storable(descriptor, value)) for descriptor, value in checked]
        with self._steps:
            for descriptor, value in stored:
                self._store(descriptor, value)
            self._stamp_update()

    def write(self, param: str, value: Any, /) -> None:
        """Request that a value is written to the device; it replaces a value not yet sent.

        Raises:
            DeviceBufferError: The parameter is unknown or not writeable, or the buffer is not
                valid.
            TypeError: The value has the wrong type.
            ValueError: The value is NaN.
            BufferBusyError: Another process holds the lock.
        """
        descriptor = self.params.get(param)
        if descriptor is None or not descriptor.writeable:
            raise self._unusable(param, "writeable")
        value = descriptor.checked(value)
        if descriptor.is_simple:
            self._request_write(descriptor, value)
        else:
            value = to_array(descriptor, value)
            with self._steps:
                self._request_write(descriptor, value)

    def _request_write(self, descriptor: Parameter, value: Any) -> None:
        """Store a checked value to be sent."""
        param, header = descriptor.name, self._header
        result = _try_lock(self._address)
        if result:
            self._mutex.resolve(result)
        try:
            if not header.valid:
                raise not_connected(self.name)
            self._tokens[descriptor.id] = self.token[0]
            setattr(self._writes, param, value)
            was = header.pending
            header.pending = was | 1 << descriptor.id
        finally:
            _unlock(self._address)
        if not was and self.write_event is not None:
            self.write_event.signal()

    def snapshot(self) -> dict[str, Any]:
        """Return all readable values at one moment.

        Raises:
            DeviceBufferError: The buffer is not valid.
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            if not self._header.valid:
                raise not_connected(self.name)
            values = (
                (name, getattr(self._updates, name))
                for name in self.params
                if name in self._readable
            )
            return {name: to_python(value) for name, value in values}

    def get_update(self) -> dict[str, Any]:
        """Return the parameters received since the last call, with their newest values.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        values = self._take("updated", self._updates)
        return {name: value for name, value in values.items() if name in self._readable}

    def get_write(self) -> dict[str, Any]:
        """Return the writes requested since the last call: the parameters and their values.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        return self._take("pending", self._writes)

    def _take(self, field: str, block: Any) -> dict[str, Any]:
        """Clear a bitmap of the header, and return the values of its parameters."""
        with self._lock:
            bitmap = getattr(self._header, field)
            setattr(self._header, field, 0)
            return {
                name: to_python(getattr(block, name))
                for name, param in self.params.items()
                if bitmap >> param.id & 1
            }

    def _descriptor(self, param: str) -> Parameter:
        descriptor = self.params.get(param)
        if descriptor is None:
            raise self._unusable(param, "readable")
        return descriptor

    def _storable(self, descriptor: Parameter, value: Any) -> Any:
        value = descriptor.checked(value)
        return value if descriptor.is_simple else to_array(descriptor, value)

    def _store(self, descriptor: Parameter, value: Any) -> None:
        setattr(self._updates, descriptor.name, value)
        self._header.updated |= 1 << descriptor.id
        self._received[descriptor.id] += 1

    def _stamp_update(self) -> None:
        header = self._header
        header.last_update = time.time()
        header.update_stamp = boottime_ns()
        if header.watchers:
            self._wake()

    def _unusable(self, param: str, access: str) -> DeviceBufferError:
        if param in self.params:
            return DeviceBufferError(
                f"{self.name}.{param} is not {access}", device=self.name, param=param
            )
        error = unknown_parameter(self.peripheral, param)
        return DeviceBufferError(error.message, **error.context)
