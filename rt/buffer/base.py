"""The memory of a buffer: creation, opening, locking, ownership and counters.

`Buffer` implements the operations on values.
"""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from rt import log
from rt.buffer import arena, layout, mutex, segment
from rt.buffer.layout import to_python
from rt.buffer.transaction import Journal, Lock, Transaction
from rt.buffer.wakeup import EXECUTOR_SLOT, Wakeups
from rt.buffer.watch import Watch
from rt.buffer.write_event import WriteEvent
from rt.catalog import Parameter, Peripheral
from rt.catalog.packing import Packing
from rt.errors import DeviceBufferError

LOCK_TIMEOUT: Final = 0.01
"""Default time (s) that an operation waits for a lock."""


class BaseBuffer:
    """The segment of one peripheral.

    Create a type with ``make_type``, and instances with ``open`` or ``attach``.

    Attributes:
        name: The catalog's name of the peripheral.
        params: Maps parameter names to their descriptors.
        write_event: Signalled when the first of several pending writes is stored; may be None.
        wakeups: Wake processes that wait for a change; may be None.
        token: One byte, the fencing token that this process's writes carry (see `rt.buffer.lease`).
    """

    name: ClassVar[str] = ""
    params: ClassVar[Mapping[str, Parameter]] = {}
    peripheral: ClassVar[Peripheral] = Peripheral(name="")
    write_event: WriteEvent | None = None
    wakeups: Wakeups | None = None
    token: memoryview | bytes = bytes((EXECUTOR_SLOT,))

    _counters: ClassVar[tuple[tuple[str, Any], ...]] = ()
    _structure: ClassVar[type[ctypes.Structure]]
    _changing: ClassVar[slice]
    _packing: ClassVar[Packing]
    _hash: ClassVar[int] = 0
    _readable: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, memory: Any) -> None:
        self._view = self._structure.from_buffer(memory)
        view: Any = self._view
        self._header: layout.Header = view.header
        self._updates: Any = view.update
        self._writes: Any = view.write
        self._tokens: Any = view.tokens
        self._received: Any = view.received
        self._sent: Any = view.sent
        self._update_bytes = memoryview(view.update).cast("B")
        self._write_bytes = memoryview(view.write).cast("B")
        address = ctypes.addressof(self._header) + layout.Header.mutex.offset
        self._mutex = mutex.RobustMutex(address, LOCK_TIMEOUT, recovered=self._recover)
        self._address = address
        arena.register_lock(memory, address)
        self._journal = Journal(memoryview(memory), self._header, self._changing)
        self._lock = Lock(self, self._mutex)
        self._steps = Transaction(self, self._mutex, self._journal)
        self._transaction = Transaction(self, self._mutex, self._journal, self.name)
        self._watch = Watch(self._header, self._received, self._mutex)

    def __repr__(self) -> str:
        """Return the type and the values, read without the lock."""
        values = ", ".join(
            f"{name}={to_python(getattr(self._updates, name))!r}" for name in self.params
        )
        return f"<{self.name} {'valid' if self.valid else 'invalid'} {values}>"

    @classmethod
    def make_type(
        cls, name: str, params: Sequence[Parameter], *extra_fields: tuple[str, Any], **attrs: Any
    ) -> type[Self]:
        """Create a type of buffers.

        Args:
            name: The catalog's name of the peripheral.
            params: Its parameters in order of their ids.
            extra_fields: Names and C types of further state, placed between the header and the
                blocks.
            attrs: Attributes of the new class.

        Examples:
            >>> import ctypes
            >>> from rt.buffer import Buffer, Parameter
            >>> lit = Parameter("lit", ctypes.c_bool, 0, writeable=True)
            >>> Lamp = Buffer.make_type("lamp", [lit])
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
            "_packing": Packing(params),
            "_hash": layout.catalog_hash(name, params, cls.__name__),
            "_readable": frozenset(param.name for param in params if param.readable),
            **attrs,
        }
        return type(name, (cls,), namespace)

    @classmethod
    def size(cls) -> int:
        """Return the size of a segment of this type in bytes."""
        return ctypes.sizeof(cls._structure)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, name: str, /, *, create: bool = True, lock_timeout: float = LOCK_TIMEOUT
    ) -> Iterator[Self]:
        """Map the buffer of that name.

        The memory is unmapped when it is no longer used; the name stays until ``unlink``. An
        existing buffer is mapped without a lock.

        Args:
            name: The name of the segment.
            create: Whether to create a missing buffer. The creator owns buffers: it replaces one of
                another layout.
            lock_timeout: How long to wait while another process creates a buffer, and later for the
                buffer's lock (s); 0 for event loops.

        Raises:
            BufferBusyError: Another process took longer to create a buffer.
            DeviceBufferError: The buffer is missing, or has an unexpected layout.
        """
        try:
            memory = segment.attach(name)
            fault = cls._fault(memory)
        except DeviceBufferError:
            if not create:
                raise
            memory, fault = cls._create(name, lock_timeout)
        if fault and create:
            segment.unlink(name, lock_timeout)
            memory, fault = cls._create(name, lock_timeout)
        if fault:
            raise DeviceBufferError(
                f"the buffer {name} has an unexpected layout: {fault}", segment=name
            )
        buffer = cls.attach(memory)
        buffer.lock_timeout = lock_timeout
        if create:
            buffer.claim()
        yield buffer

    @classmethod
    def _create(cls, name: str, timeout: float) -> tuple[memoryview, str]:
        """Create the segment, or map the one that another process created in the meantime.

        Returns:
            Its memory, and what is wrong with it.
        """
        memory = segment.create(name, cls.size(), cls._initialize, timeout)
        if memory is None:
            memory = segment.attach(name)
        return memory, cls._fault(memory)

    @classmethod
    def attach(cls, memory: Any) -> Self:
        """Return a buffer over initialized memory."""
        return cls(memory)

    @classmethod
    def private(cls) -> Self:
        """Return a new buffer in this process's own memory."""
        memory = mmap.mmap(-1, cls.size())
        cls._initialize(memory)
        return cls(memory)

    @classmethod
    def unlink(cls, name: str) -> None:
        """Remove the name of a shared buffer; processes that have it open keep it."""
        segment.unlink(name)

    @classmethod
    def _initialize(cls, memory: mmap.mmap | memoryview) -> None:
        header = layout.Header.from_buffer(memory)
        header.version = layout.VERSION
        header.size = cls.size()
        header.catalog_hash = cls._hash
        mutex.initialize(ctypes.addressof(header) + layout.Header.mutex.offset)
        header.magic = layout.MAGIC

    @classmethod
    def _fault(cls, memory: memoryview) -> str:
        if len(memory) < ctypes.sizeof(layout.Header):
            return f"only {len(memory)} bytes"
        header = layout.Header.from_buffer(memory)
        if header.magic != layout.MAGIC:
            return "not a buffer of rt"
        if header.version != layout.VERSION:
            return f"layout version {header.version}, expected {layout.VERSION}"
        if header.catalog_hash != cls._hash:
            return f"created from another catalog entry of {cls.name}"
        if len(memory) != cls.size():
            return f"{len(memory)} bytes, expected {cls.size()}"
        return cls._overwritten(header)

    @classmethod
    def _overwritten(cls, header: layout.Header) -> str:
        """Return what in a header of this type rt never writes; empty if nothing."""
        if (
            header.magic != layout.MAGIC
            or header.version != layout.VERSION
            or header.catalog_hash != cls._hash
            or header.size != cls.size()
            or header.valid > 1
        ):
            return "its header was overwritten"
        if mutex.State.at(memoryview(header.mutex).cast("B")).kind != mutex.kind():
            return "its lock was overwritten"
        return ""

    def damage(self) -> str:
        """Return what in the header rt never writes; empty if nothing. Takes no lock."""
        return self._overwritten(self._header)

    def lock_state(self) -> tuple[int, ...]:
        """Return all zeros while the lock is free and no transaction runs, or if the owner died.

        Takes no lock.
        """
        held = mutex.State.at(memoryview(self._header.mutex).cast("B")).held
        return held if len(held) == 1 else (*held, self._header.depth)

    def claim(self) -> None:
        """Record this process as the owner of the buffer.

        Takes no lock, because only the owner writes these words.
        """
        self._header.generation += 1
        self._header.writer = os.getpid()

    @property
    def lock_timeout(self) -> float:
        """How long an operation waits for the lock (s); 0 never waits, for event loops."""
        return self._mutex.timeout

    @lock_timeout.setter
    def lock_timeout(self, seconds: float) -> None:
        self._mutex.timeout = seconds

    @property
    def valid(self) -> bool:
        """Whether the peripheral is connected and its values are current."""
        return bool(self._header.valid)

    @valid.setter
    def valid(self, value: bool) -> None:
        with self._lock:
            if bool(self._header.valid) != value:
                self._header.valid = value
                self._header.presence += 1
                self._wake()

    def invalidate_without_lock(self) -> None:
        """Mark the peripheral as disconnected without the lock, for when another process keeps it.

        Each store is one aligned word.
        """
        self._header.valid = 0
        self._header.presence += 1
        if self.wakeups is not None:
            self.wakeups.signal(self._header.watchers)

    @property
    def recoveries(self) -> int:
        """How often the lock was taken over from a dead owner."""
        return int(self._header.recoveries)

    @property
    def received(self) -> dict[str, int]:
        """How often each parameter was received, by name; read without the lock."""
        return {name: self._received[param.id] for name, param in self.params.items()}

    @property
    def sent(self) -> dict[str, int]:
        """How often each parameter was sent to the device, by name; read without the lock."""
        return {name: self._sent[param.id] for name, param in self.params.items()}

    def _wake(self) -> None:
        """Wake the waiting processes, with the lock held; without `wakeups` the bits stay set."""
        slots = self._header.watchers
        if slots and self.wakeups is not None:
            self._header.watchers = 0
            self.wakeups.signal(slots)

    def _recover(self) -> None:
        """Recover the buffer from a dead owner of the lock."""
        self._journal.recover()
        self._header.recoveries += 1
        log.get_logger().warning(
            "buffer lock recovered from a dead process; its unfinished changes are rolled back",
            device=self.name,
            recoveries=self._header.recoveries,
        )
