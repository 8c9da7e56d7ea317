"""The shared memory of one robot: a sealed memfd with all segments and a directory of their names.

The root creates the arena, its processes inherit the descriptor, and commands receive it from the
root (`rt.buffer.session`). The memory has no name in the file system that could be removed or
replaced. Its size is sealed (memfd_create(2), F_ADD_SEALS), so truncation cannot kill processes
with SIGBUS. It is freed with its last process.

Team code can write anything into the memory. Whatever the directory contains, no entry leads
outside of the arena or into the directory; an impossible offset or number is an error of that
segment.

Invariant: a segment is complete before it is in the directory, and its memory is never reused.

A forked process has no access to the arena: the mapping is not inherited (MADV_DONTFORK). Private
memory replaces it, in which no lock can be taken (`rt.buffer.mutex`).
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
from rt.process_limits import explain

SIZE: Final = 16 << 20
"""Bytes of an arena; pages are allocated when a segment uses them."""
CAPACITY: Final = 8192
"""Maximum number of segments: enough for a few thousand Smart Devices and the gamepads."""
_MAGIC = b"rtarena\x01"
_NAME_SIZE = 112
_ALIGNMENT = 64
# From linux/fcntl.h; the fcntl module defines them since Python 3.13.
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
    """A new arena, as held by the process that creates it; a context manager that closes it.

    Attributes:
        fd: The descriptor, which children inherit under the same number.
        prefix: The prefix of the names of its segments, in this process and in those that inherited
            the descriptor.

    Raises:
        ConfigError: The system refuses such memory; the message says why and what to do.
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
    """The mapping of an arena in this process, which lives as long as its segments are used.

    Attributes:
        address: Its address.
        locks: The addresses of the locks in it that this process uses; made unusable in a fork.
    """

    address: int
    locks: set[int]
    _mutex: int
    _index_of: dict[str, int]
    _seen: int

    @classmethod
    def of(cls, fd: int) -> "Mapping":
        """Map the arena behind a descriptor, or return this process's existing mapping of it.

        The caller keeps the descriptor.

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
        self._index_of = {}
        self._seen = 0
        return self

    def _directory(self) -> Any:
        # Created for each use; a stored one would keep its own memory mapped.
        return _Directory.from_buffer(self)

    def create(
        self,
        fd: int,
        name: str,
        size: int,
        initialize: Callable[[memoryview], None],
        timeout: float = 0.0,
    ) -> memoryview | None:
        """Create a segment, and let ``initialize`` fill it before it is in the directory.

        Args:
            fd: A descriptor of the arena.
            name: The name of the segment.
            size: Its size in bytes.
            initialize: Fills the memory, which is all zeros.
            timeout: How long to wait while another process creates or removes one (s), which takes
                about 20 us; 0 for event loops.

        Returns:
            Its memory, or None if a segment of that name exists.

        Raises:
            BufferBusyError: Another process held the lock for longer.
            DeviceBufferError: The name is too long, or the memory is used up.
        """
        encoded = name.encode()
        if not 0 < len(encoded) <= _NAME_SIZE:
            raise DeviceBufferError(
                f"invalid buffer name {name!r}: use 1 to {_NAME_SIZE} bytes, not {len(encoded)}"
            )
        lock = self._acquire(name, timeout)
        try:
            if self._find(name) is not None:
                return None
            directory = self._directory()
            offset, index = directory.used, directory.count
            if not _is_valid_range(offset, 0) or index < self._seen:
                raise _damaged(name)
            end = offset + -(-size // _ALIGNMENT) * _ALIGNMENT
            if index >= CAPACITY or end > SIZE:
                raise DeviceBufferError(
                    f"no room for the buffer {name}: {index} buffers use {offset >> 10} of"
                    f" {SIZE >> 10} KiB; restart the robot to remove buffers of absent devices",
                    segment=name,
                )
            # Allocated now, so that missing memory is an error here and not a SIGBUS later.
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
        """Return the memory of the segment of that name.

        Raises:
            DeviceBufferError: There is no such segment.
        """
        index = self._find(name)
        if index is None:
            raise DeviceBufferError(f"there is no buffer {name}", segment=name, absent=True)
        entry = self._directory().entries[index]
        if not _is_valid_range(entry.offset, entry.size):
            raise _damaged(name)
        return memoryview(self)[entry.offset : entry.offset + entry.size]

    def unlink(self, name: str, timeout: float = 0.0) -> bool:
        """Remove a segment from the directory; processes that use it keep its memory.

        Returns:
            False if there was no such segment.

        Raises:
            BufferBusyError: Another process held the lock for longer than ``timeout`` (s).
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
        """Take the lock of the directory; ``name`` is the segment for the error."""
        lock = mutex.RobustMutex(self._mutex, timeout)
        try:
            lock.acquire()
        except BufferBusyError as error:
            raise BufferBusyError(
                f"the buffer {name} is not available: another process holds the lock of the"
                " robot's shared memory",
                segment=name,
            ) from error
        return lock

    def is_intact(self) -> bool:
        """Return whether rt can have written the directory; False if it was overwritten."""
        directory = self._directory()
        return bool(
            directory.magic == _MAGIC
            and directory.size == SIZE
            and _is_valid_range(directory.used, 0)
            and self._seen <= directory.count <= CAPACITY
            and self._lock_now().kind == mutex.kind()
        )

    def lock_state(self) -> tuple[int, ...]:
        """Return all zeros while the directory's lock is free or its owner is dead."""
        return self._lock_now().held

    def _lock_now(self) -> mutex.State:
        start = _Directory.mutex.offset
        return mutex.State.at(memoryview(self)[start : start + mutex.SIZE])

    def names(self) -> list[str]:
        """Return the names of all segments."""
        self._refresh()
        entries = self._directory().entries
        return [name for name, index in self._index_of.items() if entries[index].name]

    def _find(self, name: str) -> int | None:
        """Return the number of the entry of that name."""
        self._refresh()
        index = self._index_of.get(name)
        if index is None or self._directory().entries[index].name != name.encode():
            return None
        return index

    def _refresh(self) -> None:
        """Read new entries; of an existing entry only the name can change, to empty."""
        directory = self._directory()
        count = min(directory.count, CAPACITY)
        for index in range(self._seen, count):
            self._index_of[directory.entries[index].name.decode(errors="replace")] = index
        self._seen = max(self._seen, count)


_mappings: weakref.WeakValueDictionary[tuple[int, int], Mapping] = weakref.WeakValueDictionary()
_located: weakref.WeakValueDictionary[str, Mapping] = weakref.WeakValueDictionary()


@contextlib.contextmanager
def locate(location: str) -> Iterator[tuple[Mapping, int]]:
    """Yield the arena at a location and a descriptor of it.

    A location is ``fd:N`` for a descriptor of this process, or a path in /proc. If team code has
    closed or replaced the descriptor, the existing mapping is used; only new segments need the
    descriptor.

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
                    f"cannot use the shared memory of the robot: {reason}"
                ) from error
            mapping, fd = known, -1
        yield mapping, fd
    finally:
        if opened >= 0:
            os.close(opened)


def register_lock(memory: Any, address: int) -> None:
    """Register the address of a lock in a segment, which a fork makes unusable."""
    owner = memory.obj if isinstance(memory, memoryview) else memory
    if isinstance(owner, Mapping):
        owner.locks.add(address)


def _initialize(memory: mmap.mmap) -> None:
    directory: Any = _Directory.from_buffer(memory)
    directory.size = SIZE
    directory.used = _FIRST
    mutex.initialize(ctypes.addressof(directory) + _Directory.mutex.offset)
    directory.magic = _MAGIC


def _is_valid_range(offset: int, size: int) -> bool:
    """Return whether a segment may have this offset and size."""
    return offset >= _FIRST and offset + size <= SIZE and offset % _ALIGNMENT == 0


def _damaged(name: str) -> DeviceBufferError:
    return DeviceBufferError(
        f"the buffer {name} is not available: the robot's shared memory was overwritten",
        segment=name,
    )


def _not_an_arena(fd: int) -> DeviceBufferError:
    return DeviceBufferError(
        f"descriptor {fd} is not the shared memory of a robot of this version of rt"
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p
_MAP_FIXED = 0x10


def _replace_in_fork() -> None:
    """Map private memory over the arenas, with locks that cannot be taken."""
    mapped = list(_mappings.values())
    _mappings.clear()
    _located.clear()
    for mapping in mapped:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        _libc.mmap(mapping.address, SIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        for lock in mapping.locks:
            mutex.poison(lock)
        _replaced.append(mapping)


_replaced: list[Mapping] = []
"""Kept alive in a fork, because unmapping them would unmap the private memory."""
os.register_at_fork(after_in_child=_replace_in_fork)
