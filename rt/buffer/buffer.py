"""Peripheral data, shared between processes.

A buffer holds the newest value of every parameter of one peripheral. Every operation takes the
buffer's mutex, waits for it at most ``lock_timeout`` seconds, and touches nothing else: a call of a
microsecond, not a round trip. Whatever consists of several steps is a transaction: it counts as a
whole or not at all, also when its process is killed in the middle.
"""

import contextlib
import ctypes
import math
import time
from collections.abc import Mapping
from typing import Any

from rt.buffer import mutex
from rt.buffer.arrays import to_array, to_python
from rt.buffer.base import BaseBuffer
from rt.buffer.clock import boottime_ns
from rt.buffer.transaction import not_connected
from rt.catalog import Parameter, unknown_parameter
from rt.errors import DeviceBufferError

_try_lock = mutex.try_lock
_unlock = mutex.unlock


class Buffer(BaseBuffer):
    """The data of one peripheral; make a type with ``make_type``, and then instances with ``open`` or ``attach``."""

    @property
    def age(self) -> float:
        """How long ago the last value came in, by a clock that goes on while the machine is suspended (s); infinite if none ever did."""
        stamp = self._header.update_stamp
        now = boottime_ns()
        return (now - stamp) / 1e9 if 0 < stamp <= now else math.inf

    @property
    def dirty(self) -> bool:
        """Whether somebody asked for a write or a read that has not been sent; looks without the lock."""
        header = self._header
        return bool(header.pending or header.pending_read)

    def transaction(self) -> contextlib.AbstractContextManager[BaseBuffer]:
        """Hold the lock over several operations, which count all or none; reentrant, and never across an ``await``.

        A transaction that ends with an exception leaves everything as it was when the outermost one
        began.

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
        """Wait until one of these parameters, or any if none is named, has come in; a checkpoint.

        Nothing is missed: what came in since the calling task's last call, or since this process
        opened the buffer, is told at once. What came in several times is told once. A cancel loses
        nothing.

        Returns:
            Those of the parameters that came in; none of them if instead the peripheral came or
            went (see ``valid``).

        Raises:
            DeviceBufferError: There is no such parameter, or this process has no bells.
        """
        ids = {self._descriptor(name).id: name for name in params or self.params}
        if self.wakeups is None:
            raise DeviceBufferError(
                f"nobody can wait for the {self.name}: this process has no bells", device=self.name
            )
        return frozenset(ids[changed] for changed in await self._watch.changed(ids, self.wakeups))

    def get(self, param: str, /) -> Any:
        """The newest value of a readable parameter: a bool, int or float; of an array a list.

        Raises:
            DeviceBufferError: There is no such parameter, it is not readable, or the buffer is not
                valid.
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
        """Store a value in the update block, as what the peripheral said.

        Raises:
            DeviceBufferError: There is no such parameter.
            TypeError: The value is of the wrong kind.
            BufferBusyError: Another process holds the lock.
        """
        descriptor = self._descriptor(param)
        value = self._storable(descriptor, value)
        # A simple value is one store, which nobody can see half done.
        with self._lock if descriptor.is_simple else self._steps:
            self._store(descriptor, value)
            self._stamp_update()

    def set_all(self, values: Mapping[str, Any]) -> None:
        """Store several values at once, as what the peripheral said; readers see all of them or none."""
        checked = [(self._descriptor(name), value) for name, value in values.items()]
        stored = [(descriptor, self._storable(descriptor, value)) for descriptor, value in checked]
        with self._steps:
            for descriptor, value in stored:
                self._store(descriptor, value)
            self._stamp_update()

    def write(self, param: str, value: Any, /) -> None:
        """Ask for a parameter to be written to the device; a newer value replaces one that has not been sent.

        Raises:
            DeviceBufferError: There is no such parameter, it is not writeable, or the buffer is not
                valid.
            TypeError: The value is of the wrong kind.
            ValueError: The value is NaN.
            BufferBusyError: Another process holds the lock.
        """
        descriptor = self.params.get(param)
        if descriptor is None or not descriptor.writeable:
            raise self._unusable(param, "writeable")
        value = descriptor.checked(value)
        if descriptor.is_simple:
            self._ask(descriptor, value)
        else:
            value = to_array(descriptor, value)
            with self._steps:
                self._ask(descriptor, value)

    def _ask(self, descriptor: Parameter, value: Any) -> None:
        """Make a checked value one to be sent."""
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
        """All readable values, of one moment.

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
        """The parameters that came in since the last call, with their values; a parameter is given once.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            header = self._header
            names = [name for name, param in self.params.items() if header.updated >> param.id & 1]
            header.updated = 0
            return {
                name: to_python(getattr(self._updates, name))
                for name in names
                if name in self._readable
            }

    def get_write(self) -> dict[str, Any]:
        """The parameters that were asked to be written since the last call, with their values.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            header = self._header
            names = [name for name, param in self.params.items() if header.pending >> param.id & 1]
            header.pending = 0
            return {name: to_python(getattr(self._writes, name)) for name in names}

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
