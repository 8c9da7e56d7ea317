"""What every buffer is in memory: made, opened, locked, owned, counted; what its values mean is the matter of `Buffer`."""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from rt import log
from rt.buffer import arena, layout, mutex, segment
from rt.buffer.arrays import to_python
from rt.buffer.transaction import Journal, Lock, Transaction
from rt.buffer.wakeup import EXECUTOR_SLOT, Wakeups
from rt.buffer.watch import Watch
from rt.buffer.write_event import WriteEvent
from rt.catalog import Parameter, Peripheral
from rt.errors import DeviceBufferError

LOCK_TIMEOUT: Final = 0.01
"""How long an operation waits for a lock by default (s)."""


class BaseBuffer:
    """A segment of one peripheral; make a type with ``make_type``, and then instances with ``open`` or ``attach``.

    Attributes:
        name: The catalog's name of the peripheral.
        params: Maps parameter names to their descriptors.
        write_event: Rung when the first of some pending writes is stored; None for nobody.
        wakeups: How processes that wait for a change are woken; None for nobody.
        token: One byte, what this process's writes to devices carry: that of its lease (see
            `rt.buffer.lease`).
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
    _block: ClassVar[layout.Block]
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
        """The type and the values, without the lock: for a person."""
        values = ", ".join(
            f"{name}={to_python(getattr(self._updates, name))!r}" for name in self.params
        )
        return f"<{self.name} {'valid' if self.valid else 'invalid'} {values}>"

    @classmethod
    def make_type(
        cls, name: str, params: Sequence[Parameter], *extra_fields: tuple[str, Any], **attrs: Any
    ) -> type[Self]:
        """Make a type of buffers.

        Args:
            name: The catalog's name of the peripheral.
            params: Its parameters in order of their ids.
            extra_fields: Names and C types of further state, placed between the header and the
                blocks.
            attrs: Attributes of the new class.

        Examples:
            >>> import ctypes
            >>> from rt.buffer import Buffer, Parameter
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
    def open(
        cls, name: str, /, *, create: bool = True, lock_timeout: float = LOCK_TIMEOUT
    ) -> Iterator[Self]:
        """Map the buffer of that name; its memory is unmapped when it is no longer used, and its name stays until ``unlink``.

        One that is there is mapped without any lock.

        Args:
            name: The name of the segment.
            create: Whether to make it if there is none. Who makes buffers owns them: one of another
                layout is replaced.
            lock_timeout: How long to wait while another process makes a buffer, and for the
                buffer's lock later (s); 0 where an event loop runs.

        Raises:
            BufferBusyError: Another process makes a buffer for longer.
            DeviceBufferError: There is none, or it has another layout than this process expects.
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
                f"the buffer {name} is not what this process expects: {fault}", segment=name
            )
        buffer = cls.attach(memory)
        buffer.lock_timeout = lock_timeout
        if create:
            buffer.claim()
        yield buffer

    @classmethod
    def _create(cls, name: str, timeout: float) -> tuple[memoryview, str]:
        """Make the segment, or map the one that another process has made meanwhile: its memory, and what is wrong with it."""
        memory = segment.create(name, cls.size(), cls._initialize, timeout)
        if memory is None:
            memory = segment.attach(name)
        return memory, cls._fault(memory)

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
        return cls._overwritten(header)

    @classmethod
    def _overwritten(cls, header: layout.Header) -> str:
        """What of a header of this type no process of rt writes; empty if there is nothing."""
        if (
            header.magic != layout.MAGIC
            or header.version != layout.VERSION
            or header.catalog_hash != cls._hash
        ):
            return "its header was overwritten"
        if header.size != cls.size() or header.valid > 1:
            return "its header was overwritten"
        if mutex.State.at(memoryview(header.mutex).cast("B")).kind != mutex.kind():
            return "its lock was overwritten"
        return ""

    def damage(self) -> str:
        """What no process of rt has written into the header; empty if there is nothing. Takes no lock."""
        return self._overwritten(self._header)

    def lock_state(self) -> tuple[int, ...]:
        """All zeros while the lock is free and no transaction runs, or if the owner died; looks without the lock."""
        held = mutex.State.at(memoryview(self._header.mutex).cast("B")).held
        return held if len(held) == 1 else (*held, self._header.depth)

    def claim(self) -> None:
        """Say that this process is the one that keeps the buffer: without the lock, since no other process writes these words."""
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

    def invalidate_without_lock(self) -> None:
        """Say that the peripheral is gone without the lock, one aligned word: for when another process keeps the lock."""
        self._header.valid = 0
        self._header.presence += 1
        if self.wakeups is not None:
            self.wakeups.signal(self._header.watchers)

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

    def _wake(self) -> None:
        """Ring the bells of those who wait, with the lock held; without bells here they stay for who has some."""
        slots = self._header.watchers
        if slots and self.wakeups is not None:
            self._header.watchers = 0
            self.wakeups.signal(slots)

    def _recover(self) -> None:
        """Take the lock over from an owner that died."""
        self._journal.recover()
        self._header.recoveries += 1
        log.get_logger().warning(
            "a process died while it held a buffer's lock: what it had not finished is taken back",
            device=self.name,
            recoveries=self._header.recoveries,
        )
