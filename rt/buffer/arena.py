"""The shared memory of one robot: a sealed memfd that holds every segment, and a directory of them by name.

The root creates the arena and its processes inherit the descriptor; commands receive it from the
root (`rt.buffer.session`). So the memory has no name in the file system that could be removed or
replaced, and its size is sealed (memfd_create(2), F_ADD_SEALS), so that truncating it cannot end
its processes with SIGBUS. The memory ends with the last process that has it.

Team code can write anything into the memory. Whatever the directory holds, no entry leads outside
of the arena or into the directory, and a place or a number that cannot be is an error of that
segment.

Invariant: a segment is complete before it is in the directory, and its place is never given to
    another one.

A process that was forked has no part in the arena: the mapping does not survive a fork
(MADV_DONTFORK), and private memory takes its place, in which every lock refuses to be taken
(`rt.buffer.mutex`).
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

from rt.buffer import mutex
from rt.errors import BufferBusyError, ConfigError, DeviceBufferError
from rt.limits import explain

SIZE: Final = 16 << 20
"""Bytes of an arena; pages are allocated when a segment is made in them."""
CAPACITY: Final = 8192
"""How many segments an arena can hold: the buffers of a few thousand Smart Devices, and of the robot's own peripherals."""
_MAGIC = b"rtarena\x01"
_NAME_SIZE = 112
_ALIGNMENT = 64
# Of linux/fcntl.h; the fcntl module names them only from Python 3.13 on.
_F_ADD_SEALS = 1033
_F_GET_SEALS = 1034
_SEALS = 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
_DESCRIPTOR = "fd:"


class _Entry(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char * _NAME_SIZE),
        ("offset", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )


class _Directory(ctypes.Structure):
    _fields_ = (
        ("magic", ctypes.c_char * 8),
        ("size", ctypes.c_uint64),
        ("mutex", ctypes.c_uint8 * mutex.SIZE),
        ("used", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("entries", _Entry * CAPACITY),
    )


_FIRST: Final = -(-ctypes.sizeof(_Directory) // mmap.PAGESIZE) * mmap.PAGESIZE


class Arena:
    """A new arena, as the process that creates it holds it; a context manager that closes the descriptor.

    Attributes:
        fd: The descriptor, which children inherit under the same number.
        prefix: What the names of its segments begin with, in this process and in those that
            inherited the descriptor.

    Raises:
        ConfigError: The system refuses such memory; says why and what to do.
    """

    def __init__(self, label: str) -> None:
        try:
            self.fd = os.memfd_create(f"rt-{label}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise ConfigError(f"cannot create shared memory: {explain(error)}") from None
        try:
            os.ftruncate(self.fd, SIZE)
            os.posix_fallocate(self.fd, 0, _FIRST)
            fcntl.fcntl(self.fd, _F_ADD_SEALS, _SEALS)
            with mmap.mmap(self.fd, _FIRST) as memory:
                _initialize(memory)
            self.mapping = Mapping.of(self.fd)
        except OSError as error:
            os.close(self.fd)
            raise ConfigError(
                f"cannot create {SIZE >> 20} MiB of shared memory: {explain(error)}"
            ) from None
        self.prefix = f"{_DESCRIPTOR}{self.fd}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; mappings stay. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Mapping(mmap.mmap):
    """An arena as this process has it mapped; its segments keep it mapped.

    Attributes:
        address: Where it is mapped.
        locks: The addresses of the locks in it that this process uses; unusable in a fork.
    """

    address: int
    locks: set[int]
    _mutex: int
    _known: dict[str, int]
    _seen: int

    @classmethod
    def of(cls, fd: int) -> "Mapping":
        """Map the arena behind a descriptor, which stays the caller's; the same mapping again if this process has it.

        Raises:
            OSError: The descriptor is closed, or cannot be mapped.
            DeviceBufferError: It is not an arena of this version.
        """
        stat = os.fstat(fd)
        key = stat.st_dev, stat.st_ino
        found = _mappings.get(key)
        if found is None:
            found = _mappings[key] = cls._map(fd, stat.st_size)
        return found

    @classmethod
    def _map(cls, fd: int, size: int) -> "Mapping":
        try:
            sealed = fcntl.fcntl(fd, _F_GET_SEALS) & _SEALS == _SEALS
        except OSError:  # not a memfd
            sealed = False
        if not sealed or size != SIZE:
            raise _not_an_arena(fd)
        os.set_inheritable(fd, False)
        self = cls(fd, SIZE)
        self.madvise(mmap.MADV_DONTFORK)
        directory = self._directory()
        if directory.magic != _MAGIC or directory.size != SIZE:
            raise _not_an_arena(fd)
        self.address = ctypes.addressof(directory)
        lock = self.address + _Directory.mutex.offset
        self.locks = {lock}
        self._mutex = lock
        self._known = {}
        self._seen = 0
        return self

    def _directory(self) -> Any:
        # Made for each use: kept, it would keep its own memory mapped.
        return _Directory.from_buffer(self)

    def create(
        self,
        fd: int,
        name: str,
        size: int,
        initialize: Callable[[memoryview], None],
        timeout: float = 0.0,
    ) -> memoryview | None:
        """Make a segment of ``size`` bytes and let ``initialize`` fill it before it is in the directory.

        Args:
            fd: A descriptor of the arena.
            name: The name of the segment.
            size: Its bytes.
            initialize: Fills it; it is all zeros.
            timeout: How long to wait while another process creates or removes one (s), which takes
                some 20 us; 0 where an event loop runs.

        Returns:
            Its memory, or None if there is a segment of that name already.

        Raises:
            BufferBusyError: Another process has the lock for longer.
            DeviceBufferError: The name is too long, or the memory is used up.
        """
        encoded = name.encode()
        if not 0 < len(encoded) <= _NAME_SIZE:
            raise DeviceBufferError(
                f"the name of a buffer has 1 to {_NAME_SIZE} bytes, not {len(encoded)}: {name!r}"
            )
        lock = self._acquire(name, timeout)
        try:
            if self._find(name) is not None:
                return None
            directory = self._directory()
            offset, index = directory.used, directory.count
            if not _is_place(offset, 0) or index < self._seen:
                raise _damaged(name)
            end = offset + -(-size // _ALIGNMENT) * _ALIGNMENT
            if index >= CAPACITY or end > SIZE:
                raise DeviceBufferError(
                    f"no room for the buffer {name}: the robot has {index} buffers with {offset >> 10} KiB of"
                    f" {SIZE >> 10}; restart the robot to forget the devices that it has seen",
                    segment=name,
                )
            # Allocated now: a page that the system does not have is an error here and not a SIGBUS
            # later.
            os.posix_fallocate(fd, offset, size)
            directory.used = end
            memory = memoryview(self)[offset : offset + size]
            initialize(memory)
            entry = directory.entries[index]
            entry.name, entry.offset, entry.size = encoded, offset, size
            directory.count = index + 1
        except OSError as error:
            raise DeviceBufferError(
                f"no memory for the buffer {name}: {explain(error)}", segment=name
            ) from error
        finally:
            lock.release()
        return memory

    def attach(self, name: str) -> memoryview:
        """The memory of the segment of that name.

        Raises:
            DeviceBufferError: There is none.
        """
        index = self._find(name)
        if index is None:
            raise DeviceBufferError(f"there is no buffer {name}", segment=name, absent=True)
        entry = self._directory().entries[index]
        if not _is_place(entry.offset, entry.size):
            raise _damaged(name)
        return memoryview(self)[entry.offset : entry.offset + entry.size]

    def unlink(self, name: str, timeout: float = 0.0) -> bool:
        """Remove a segment from the directory; processes that use it keep its memory. False if there was none.

        Raises:
            BufferBusyError: Another process has the lock for longer than ``timeout`` (s).
        """
        lock = self._acquire(name, timeout)
        try:
            index = self._find(name)
            if index is None:
                return False
            self._directory().entries[index].name = b""
            return True
        finally:
            lock.release()

    def _acquire(self, name: str, timeout: float) -> mutex.RobustMutex:
        """Take the lock of the directory, for the segment of that name."""
        lock = mutex.RobustMutex(self._mutex, timeout)
        try:
            lock.acquire()
        except BufferBusyError as error:
            raise BufferBusyError(
                f"no buffer {name} at this moment: another process has the lock of the robot's shared memory",
                segment=name,
            ) from error
        return lock

    def is_intact(self) -> bool:
        """Whether the directory can be what rt has written; False if it was overwritten."""
        directory = self._directory()
        return bool(
            directory.magic == _MAGIC
            and directory.size == SIZE
            and _is_place(directory.used, 0)
            and self._seen <= directory.count <= CAPACITY
            and self._lock_now().kind == mutex.kind()
        )

    def lock_state(self) -> tuple[int, ...]:
        """All zeros while the lock of the directory is free, or if its owner died; looks without the lock."""
        return self._lock_now().held

    def _lock_now(self) -> mutex.State:
        start = _Directory.mutex.offset
        return mutex.State.at(memoryview(self)[start : start + mutex.SIZE])

    def names(self) -> list[str]:
        """The names of all segments."""
        self._look()
        entries = self._directory().entries
        return [name for name, index in self._known.items() if entries[index].name]

    def _find(self, name: str) -> int | None:
        """The number of the entry of that name."""
        self._look()
        index = self._known.get(name)
        if index is None or self._directory().entries[index].name != name.encode():
            return None
        return index

    def _look(self) -> None:
        """Take in what the directory got since the last look; an entry does not change, but that its name is removed."""
        directory = self._directory()
        count = min(directory.count, CAPACITY)
        for index in range(self._seen, count):
            self._known[directory.entries[index].name.decode(errors="replace")] = index
        self._seen = max(self._seen, count)


_mappings: weakref.WeakValueDictionary[tuple[int, int], Mapping] = weakref.WeakValueDictionary()
_located: weakref.WeakValueDictionary[str, Mapping] = weakref.WeakValueDictionary()


@contextlib.contextmanager
def locate(location: str) -> Iterator[tuple[Mapping, int]]:
    """The arena at a location and a descriptor of it: ``fd:N`` for a descriptor of this process, or a path of one in /proc.

    A process whose team code has closed the descriptor, or put another file in its place, continues
    with what it has mapped; only new segments need the descriptor.

    Raises:
        DeviceBufferError: There is no arena.
    """
    opened = -1
    try:
        try:
            fd = int(location.removeprefix(_DESCRIPTOR)) if location.startswith(_DESCRIPTOR) else -1
            if fd < 0:
                fd = opened = os.open(location, os.O_RDWR | os.O_CLOEXEC)
            mapping = Mapping.of(fd)
            _located[location] = mapping
        except (OSError, ValueError, DeviceBufferError) as error:
            known = _located.get(location)
            if known is None:
                reason = explain(error) if isinstance(error, OSError) else str(error)
                raise DeviceBufferError(
                    f"the shared memory of the robot cannot be used: {reason}"
                ) from error
            mapping, fd = known, -1
        yield mapping, fd
    finally:
        if opened >= 0:
            os.close(opened)


def register_lock(memory: Any, address: int) -> None:
    """Note the address of a lock in a segment, so that it refuses to be taken in a fork."""
    owner = memory.obj if isinstance(memory, memoryview) else memory
    if isinstance(owner, Mapping):
        owner.locks.add(address)


def _initialize(memory: mmap.mmap) -> None:
    directory: Any = _Directory.from_buffer(memory)
    directory.size = SIZE
    directory.used = _FIRST
    mutex.initialize(ctypes.addressof(directory) + _Directory.mutex.offset)
    directory.magic = _MAGIC


def _is_place(offset: int, size: int) -> bool:
    """Whether a segment may be at an offset."""
    return offset >= _FIRST and offset + size <= SIZE and offset % _ALIGNMENT == 0


def _damaged(name: str) -> DeviceBufferError:
    return DeviceBufferError(
        f"no buffer {name}: the shared memory of the robot was overwritten", segment=name
    )


def _not_an_arena(fd: int) -> DeviceBufferError:
    return DeviceBufferError(
        f"descriptor {fd} is not the shared memory of a robot of this version of rt"
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.mmap.restype = ctypes.c_void_p
_MAP_FIXED = 0x10


def _replace_in_fork() -> None:
    """Put private memory where the arenas were mapped, with locks that refuse to be taken."""
    mapped = list(_mappings.values())
    _mappings.clear()
    _located.clear()
    for mapping in mapped:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        _libc.mmap(mapping.address, SIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        for lock in mapping.locks:
            mutex.poison(lock)
        _lost.append(mapping)


_lost: list[Mapping] = []
"""Kept in a fork, which must not unmap what may have taken the place."""
os.register_at_fork(after_in_child=_replace_in_fork)
