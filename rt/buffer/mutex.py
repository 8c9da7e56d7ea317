"""A mutex in shared memory that survives its owner: robust, process-shared, recursive.

It also has priority inheritance. When a process is killed or a thread ends while it holds the lock,
the next caller gets the lock and learns that the owner died. Every wait is bounded. The lock
belongs to a thread: never hold it across an ``await``.

Source: pthread_mutexattr_setrobust(3), pthread_mutex_consistent(3).
"""

import ctypes
import errno
import functools
import os
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rt.errors import BufferBusyError, DeviceBufferError, ExecutionError

SIZE = 64
"""Bytes reserved for a mutex: pthread_mutex_t takes 40 bytes on x86_64 and 48 on aarch64."""

# struct __pthread_mutex_s of glibc, the same on x86_64 and aarch64; linux/futex.h.
_STATE = struct.Struct("=IIIII")
_OWNER_DIED = 0x40000000
_WAITERS = 0x80000000

_PTHREAD_PROCESS_SHARED = 1
_PTHREAD_MUTEX_RECURSIVE = 1
_PTHREAD_MUTEX_ROBUST = 1
_PTHREAD_PRIO_INHERIT = 1

# PyDLL keeps the GIL, for calls that return at once and cost less than releasing the GIL.
_quick = ctypes.PyDLL(None)
_slow = ctypes.CDLL(None)


def _function(library: ctypes.CDLL, name: str, *argtypes: Any) -> Any:
    function = getattr(library, name)
    function.argtypes = argtypes
    function.restype = ctypes.c_int
    return function


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


try_lock = _function(_quick, "pthread_mutex_trylock", ctypes.c_void_p)
unlock = _function(_quick, "pthread_mutex_unlock", ctypes.c_void_p)
_consistent = _function(_quick, "pthread_mutex_consistent", ctypes.c_void_p)
_init = _function(_quick, "pthread_mutex_init", ctypes.c_void_p, ctypes.c_void_p)
_clock_lock = _function(
    _slow, "pthread_mutex_clocklock", ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Timespec)
)


def initialize(address: int) -> None:
    """Create a free mutex in the ``SIZE`` bytes at ``address`` (aligned to 8).

    Raises:
        OSError: The platform refuses one of the mutex's attributes.
    """
    attributes = ctypes.create_string_buffer(SIZE)
    _set(attributes, "init")
    _set(attributes, "setpshared", _PTHREAD_PROCESS_SHARED)
    _set(attributes, "settype", _PTHREAD_MUTEX_RECURSIVE)
    _set(attributes, "setrobust", _PTHREAD_MUTEX_ROBUST)
    _set(attributes, "setprotocol", _PTHREAD_PRIO_INHERIT)
    _check(_init(address, ctypes.addressof(attributes)), "pthread_mutex_init")
    _set(attributes, "destroy")


class State(NamedTuple):
    """The state that glibc keeps in a mutex: owner, recursion depth and kind."""

    word: int
    depth: int
    owner: int
    users: int
    kind: int

    @classmethod
    def at(cls, memory: memoryview) -> "State":
        """Return the state of the mutex in ``SIZE`` bytes."""
        return cls._make(_STATE.unpack_from(memory))

    @property
    def held(self) -> tuple[int, ...]:
        """All zeros if the mutex is free, or if its owner died and the next caller recovers it.

        The count of users is left out: glibc decrements it before it frees the mutex, and if a
        process is killed in between, the count stays wrong, which has no effect.
        """
        if self.word & ~_WAITERS == _OWNER_DIED:
            return (0,)
        return self.word & ~_WAITERS, self.depth, self.owner


@functools.cache
def kind() -> int:
    """Return the kind field of every mutex that `initialize` creates."""
    memory = (ctypes.c_uint64 * (SIZE // 8))()
    initialize(ctypes.addressof(memory))
    return State.at(memoryview(memory).cast("B")).kind


def poison(address: int) -> None:
    """Make the mutex at ``address`` impossible to take, in a process that was forked."""
    ctypes.memset(address, 0xFF, SIZE)
    _Process.forked = True


class _Process:
    forked = False


class RobustMutex:
    """The mutex at an address.

    Args:
        address: Its address; the memory must stay mapped while this object lives.
        timeout: How long ``acquire`` waits for another owner (s); 0 never waits, for event loops.
        recovered: Called with the lock held after it was taken over from a dead owner.
    """

    __slots__ = ("_recovered", "address", "timeout")

    def __init__(
        self, address: int, timeout: float = 0.01, *, recovered: Callable[[], None] = lambda: None
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._recovered = recovered

    def acquire(self) -> None:
        """Take the lock, waiting at most ``timeout``; reentrant.

        Raises:
            BufferBusyError: Another thread or process held it for the whole time.
        """
        result = try_lock(self.address)
        if result:
            self.resolve(result)

    def try_acquire(self) -> bool:
        """Take the lock if it is free or owned by this thread, and return whether it was taken."""
        result = try_lock(self.address)
        if result == 0:
            return True
        if result == errno.EOWNERDEAD:
            try:
                self._recover()
            except BufferBusyError:
                return False
            return True
        return False

    def release(self) -> None:
        """Release the lock.

        Raises:
            DeviceBufferError: This thread does not hold it.
        """
        result = unlock(self.address)
        if result:
            raise DeviceBufferError(f"the lock is not held by this thread: {os.strerror(result)}")

    def resolve(self, result: int) -> None:
        """Continue after ``try_lock`` failed: recover from a dead owner, or wait within the bound.

        Raises:
            BufferBusyError: Another owner held the lock for the whole time, or the memory no longer
                holds a usable mutex.
            ExecutionError: This process was forked from the one that opened the buffer.
        """
        if result == errno.EBUSY and self.timeout > 0:
            deadline = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + round(self.timeout * 1e9)
            spec = _Timespec(*divmod(deadline, 1_000_000_000))
            result = _clock_lock(self.address, time.CLOCK_MONOTONIC, ctypes.byref(spec))
        if result == 0:
            return
        if result == errno.EOWNERDEAD:
            self._recover()
        elif result in {errno.EBUSY, errno.ETIMEDOUT}:
            raise BufferBusyError(
                f"another process held the lock of the buffer for {self.timeout * 1000:g} ms"
            )
        elif _Process.forked:
            raise ExecutionError("a process forked by team code cannot use devices and gamepads")
        else:
            raise _unusable(result)

    def _recover(self) -> None:
        # In this order: a process killed in between leaves the lock to be recovered again.
        self._recovered()
        result = _consistent(self.address)
        if result:
            unlock(self.address)
            raise _unusable(result)


def _unusable(result: int) -> BufferBusyError:
    return BufferBusyError(
        f"cannot take the lock of the buffer: {os.strerror(result)}", errno=result
    )


def _set(attributes: Any, what: str, *value: int) -> None:
    name = f"pthread_mutexattr_{what}"
    function = getattr(_quick, name)
    function.restype = ctypes.c_int
    _check(function(ctypes.byref(attributes), *(ctypes.c_int(number) for number in value)), name)


def _check(result: int, function: str) -> None:
    if result:
        raise OSError(result, f"{function}: {os.strerror(result)}")
