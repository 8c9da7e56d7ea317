"""Peripheral data, shared between processes.

A buffer holds the newest value of every parameter of one peripheral. Every operation takes the buffer's mutex, waits for it at
most ``lock_timeout`` seconds, and touches nothing else: a call of a microsecond, not a round trip. Whatever consists of several
steps is a transaction: it counts as a whole or not at all, also when its process is killed in the middle.
"""

import contextlib
import ctypes
import math
import mmap
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from rt import log
from rt.buffer import layout, mutex, segment
from rt.buffer.arrays import filled, plain
from rt.buffer.bells import EXECUTOR_SEAT, Bells
from rt.buffer.doorbell import Doorbell
from rt.buffer.transaction import Journal, Lock, Transaction, not_connected
from rt.buffer.watch import Watch
from rt.catalog import Parameter, Peripheral, unknown_parameter
from rt.errors import DeviceBufferError

_try_lock = mutex.try_lock
_unlock = mutex.unlock
_monotonic_ns = time.monotonic_ns


class Buffer:
    """The data of one peripheral; make a type with ``make_type``, and then instances with ``open`` or ``attach``.

    Attributes:
        name: The catalog's name of the peripheral.
        params: Maps parameter names to their descriptors.
        doorbell: Rung when the first of some pending writes is stored; None for nobody.
        bells: How processes that wait for a change are woken; None for nobody.
        seat: The seat of this process, under which it writes to devices.
    """

    name: ClassVar[str] = ""
    params: ClassVar[Mapping[str, Parameter]] = {}
    peripheral: ClassVar[Peripheral] = Peripheral(name="")
    doorbell: Doorbell | None = None
    bells: Bells | None = None
    seat: int = EXECUTOR_SEAT

    _counters: ClassVar[tuple[tuple[str, Any], ...]] = ()
    _structure: ClassVar[type[ctypes.Structure]]
    _changing: ClassVar[slice]
    _block: ClassVar[layout.Block]
    _hash: ClassVar[int] = 0
    _readable: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, memory: Any) -> None:
        self._view = self._structure.from_buffer(memory)
        view: Any = self._view
        self._header: layout.Header = view.header
        self._updates: Any = view.update
        self._writes: Any = view.write
        self._seats: Any = view.seats
        self._received: Any = view.received
        self._sent: Any = view.sent
        self._update_bytes = memoryview(view.update).cast("B")
        self._write_bytes = memoryview(view.write).cast("B")
        address = ctypes.addressof(self._header) + layout.Header.mutex.offset
        self._mutex = mutex.RobustMutex(address, recovered=self._recover)
        self._address = address
        self._journal = Journal(memoryview(memory), self._header, self._changing)
        self._lock = Lock(self, self._mutex)
        self._steps = Transaction(self, self._mutex, self._journal)
        self._transaction = Transaction(self, self._mutex, self._journal, self.name)
        self._watch = Watch(self._header, self._received, self._mutex)

    def __repr__(self) -> str:
        """The type and the values, without the lock: for a person."""
        values = ", ".join(f"{name}={plain(getattr(self._updates, name))!r}" for name in self.params)
        return f"<{self.name} {'valid' if self.valid else 'invalid'} {values}>"

    @classmethod
    def make_type(
        cls, name: str, params: Sequence[Parameter], *extra_fields: tuple[str, Any], **attrs: Any
    ) -> type[Self]:
        """Make a type of buffers.

        Args:
            name: The catalog's name of the peripheral.
            params: Its parameters in order of their ids.
            extra_fields: Names and C types of further state, placed between the header and the blocks.
            attrs: Attributes of the new class.

        Examples:
            >>> import ctypes
            >>> from rt.catalog import Parameter
            >>> Lamp = Buffer.make_type("lamp", [Parameter("lit", ctypes.c_bool, 0, writeable=True)])
            >>> lamp = Lamp.private()
            >>> lamp.valid = True
            >>> lamp.set("lit", True)
            >>> lamp.get("lit")
            True
        """
        structure, changing = layout.make_structure(name, params, extra_fields, cls._counters)
        attrs.setdefault("peripheral", Peripheral(name=name, params=tuple(params)))
        namespace = {
            "name": name,
            "params": {param.name: param for param in params},
            "_structure": structure,
            "_changing": changing,
            "_block": layout.Block(params),
            "_hash": layout.catalog_hash(name, params, cls.__name__),
            "_readable": frozenset(param.name for param in params if param.readable),
            **attrs,
        }
        return type(name, (cls,), namespace)

    @classmethod
    def size(cls) -> int:
        """Bytes of a segment of this type."""
        return ctypes.sizeof(cls._structure)

    @classmethod
    @contextlib.contextmanager
    def open(cls, name: str, /, *, create: bool = True) -> Iterator[Self]:
        """Map the buffer of that name; its memory is unmapped when it is no longer used, and its name stays until ``unlink``.

        Args:
            name: The name of the segment.
            create: Whether to make it if there is none. Who makes buffers owns them: one of another layout is replaced.

        Raises:
            DeviceBufferError: There is none, or it has another layout than this process expects.
        """
        memory = segment.create(name, cls.size(), cls._initialize) if create else None
        if memory is None:
            memory = segment.attach(name)
            fault = cls._fault(memory)
            if fault and create:
                segment.unlink(name)
                memory = segment.create(name, cls.size(), cls._initialize) or segment.attach(name)
                fault = cls._fault(memory)
            if fault:
                raise DeviceBufferError(f"the buffer {name} is not what this process expects: {fault}", segment=name)
        buffer = cls.attach(memory)
        if create:
            buffer.own()
        yield buffer

    @classmethod
    def attach(cls, memory: Any) -> Self:
        """A buffer over memory that holds one already."""
        return cls(memory)

    @classmethod
    def private(cls) -> Self:
        """A buffer in this process's own memory."""
        memory = mmap.mmap(-1, cls.size())
        cls._initialize(memory)
        return cls(memory)

    @classmethod
    def unlink(cls, name: str) -> None:
        """Take the name of a shared buffer away; who has it open keeps it."""
        segment.unlink(name)

    @classmethod
    def _initialize(cls, memory: mmap.mmap) -> None:
        header = layout.Header.from_buffer(memory)
        header.version = layout.VERSION
        header.size = cls.size()
        header.catalog_hash = cls._hash
        mutex.initialize(ctypes.addressof(header) + layout.Header.mutex.offset)
        header.magic = layout.MAGIC

    @classmethod
    def _fault(cls, memory: mmap.mmap) -> str:
        if len(memory) < ctypes.sizeof(layout.Header):
            return f"it has {len(memory)} bytes"
        header = layout.Header.from_buffer(memory)
        if header.magic != layout.MAGIC:
            return "it is not a buffer of rt"
        if header.version != layout.VERSION:
            return f"it has layout version {header.version}, not {layout.VERSION}"
        if header.catalog_hash != cls._hash:
            return f"it was made from another catalog entry of {cls.name}"
        if len(memory) != cls.size():
            return f"it has {len(memory)} bytes, not {cls.size()}"
        return ""

    def own(self) -> None:
        """Say that this process is the one that keeps the buffer."""
        with self._lock:
            self._header.generation += 1
            self._header.writer = os.getpid()

    @property
    def lock_timeout(self) -> float:
        """How long an operation waits for the lock (s); 0 in an event loop, which only tries."""
        return self._mutex.timeout

    @lock_timeout.setter
    def lock_timeout(self, seconds: float) -> None:
        self._mutex.timeout = seconds

    @property
    def valid(self) -> bool:
        """Whether the peripheral is there and its values are of now."""
        return bool(self._header.valid)

    @valid.setter
    def valid(self, value: bool) -> None:
        with self._lock:
            if bool(self._header.valid) != value:
                self._header.valid = value
                self._header.presence += 1
                self._wake()

    def invalidate_by_force(self) -> None:
        """Say that the peripheral is gone without the lock, one aligned word: for when another process keeps the lock."""
        self._header.valid = 0
        self._header.presence += 1
        if self.bells is not None:
            self.bells.ring(self._header.watchers)

    @property
    def recoveries(self) -> int:
        """How often the lock was taken over from an owner that had died."""
        return int(self._header.recoveries)

    @property
    def received(self) -> dict[str, int]:
        """How often each parameter came in since the buffer was made, by name; read without the lock."""
        return {name: self._received[param.id] for name, param in self.params.items()}

    @property
    def sent(self) -> dict[str, int]:
        """How often each parameter was sent to the device since the buffer was made, by name; read without the lock."""
        return {name: self._sent[param.id] for name, param in self.params.items()}

    @property
    def age(self) -> float:
        """How long ago the last value came in, by the monotonic clock (s); infinite if none ever did."""
        stamp = self._header.update_stamp
        now = _monotonic_ns()
        return (now - stamp) / 1e9 if 0 < stamp <= now else math.inf

    @property
    def dirty(self) -> bool:
        """Whether somebody asked for a write or a read that has not been sent; looks without the lock."""
        header = self._header
        return bool(header.pending or header.pending_read)

    def transaction(self) -> contextlib.AbstractContextManager["Buffer"]:
        """Hold the lock over several operations, which count all or none; reentrant, and never across an ``await``.

        A transaction that ends with an exception leaves everything as it was when the outermost one began.

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

        Nothing is missed: what came in since the calling task's last call, or since this process opened the buffer, is told at
        once. What came in several times is told once. A cancel loses nothing.

        Returns:
            Those of the parameters that came in; none of them if instead the peripheral came or went (see ``valid``).

        Raises:
            DeviceBufferError: There is no such parameter, or this process has no bells.
        """
        ids = {self._descriptor(name).id: name for name in params or self.params}
        if self.bells is None:
            raise DeviceBufferError(f"nobody can wait for the {self.name}: this process has no bells", device=self.name)
        return frozenset(ids[changed] for changed in await self._watch.changed(ids, self.bells))

    def get(self, param: str, /) -> Any:
        """The newest value of a readable parameter: a bool, int or float; of an array a list.

        Raises:
            DeviceBufferError: There is no such parameter, it is not readable, or the buffer is not valid.
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
            return plain(value) if isinstance(value, ctypes.Array) else value
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
            DeviceBufferError: There is no such parameter, it is not writeable, or the buffer is not valid.
            TypeError: The value is of the wrong kind.
            ValueError: The value is NaN.
            BufferBusyError: Another process holds the lock.
        """
        descriptor = self.params.get(param)
        if descriptor is None or not descriptor.writeable:
            raise self._unusable(param, "writeable")
        value = self._storable(descriptor, value)
        if not descriptor.is_simple:
            with self._steps:
                self._ask(descriptor, value)
        else:
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
            self._seats[descriptor.id] = self.seat
            setattr(self._writes, param, value)
            was = header.pending
            header.pending = was | 1 << descriptor.id
        finally:
            _unlock(self._address)
        if not was and self.doorbell is not None:
            self.doorbell.ring()

    def snapshot(self) -> dict[str, Any]:
        """All readable values, of one moment.

        Raises:
            DeviceBufferError: The buffer is not valid.
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            if not self._header.valid:
                raise not_connected(self.name)
            values = ((name, getattr(self._updates, name)) for name in self.params if name in self._readable)
            return {name: plain(value) for name, value in values}

    def get_update(self) -> dict[str, Any]:
        """The parameters that came in since the last call, with their values; a parameter is given once.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            header = self._header
            names = [name for name, param in self.params.items() if header.updated >> param.id & 1]
            header.updated = 0
            return {name: plain(getattr(self._updates, name)) for name in names if name in self._readable}

    def get_write(self) -> dict[str, Any]:
        """The parameters that were asked to be written since the last call, with their values.

        Raises:
            BufferBusyError: Another process holds the lock.
        """
        with self._lock:
            header = self._header
            names = [name for name, param in self.params.items() if header.pending >> param.id & 1]
            header.pending = 0
            return {name: plain(getattr(self._writes, name)) for name in names}

    def _descriptor(self, param: str) -> Parameter:
        descriptor = self.params.get(param)
        if descriptor is None:
            raise self._unusable(param, "readable")
        return descriptor

    def _storable(self, descriptor: Parameter, value: Any) -> Any:
        value = descriptor.checked(value)
        return value if descriptor.is_simple else filled(descriptor, value)

    def _store(self, descriptor: Parameter, value: Any) -> None:
        setattr(self._updates, descriptor.name, value)
        self._header.updated |= 1 << descriptor.id
        self._received[descriptor.id] += 1

    def _stamp_update(self) -> None:
        header = self._header
        header.last_update = time.time()
        header.update_stamp = _monotonic_ns()
        if header.watchers:
            self._wake()

    def _wake(self) -> None:
        """Ring the bells of those who wait, with the lock held; without bells here they stay for who has some."""
        seats = self._header.watchers
        if seats and self.bells is not None:
            self._header.watchers = 0
            self.bells.ring(seats)

    def _recover(self) -> None:
        """Take the lock over from an owner that died."""
        self._journal.recover()
        self._header.recoveries += 1
        log.get_logger().warning(
            "a process died while it held a buffer's lock: what it had not finished is taken back",
            device=self.name,
            recoveries=self._header.recoveries,
        )

    def _unusable(self, param: str, access: str) -> DeviceBufferError:
        if param in self.params:
            return DeviceBufferError(f"{self.name}.{param} is not {access}", device=self.name, param=param)
        error = unknown_parameter(self.peripheral, param)
        return DeviceBufferError(error.message, **error.context)
