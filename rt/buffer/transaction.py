"""Transactions on a buffer: all of several operations take effect, or none.

Before the outermost transaction changes anything, the current contents are copied to the shadow. An
exception restores the copy. If the process is killed, the next owner of the lock restores it. So
readers never see part of a transaction.
"""

from types import TracebackType
from typing import Generic, TypeVar

from rt.buffer import layout, mutex
from rt.errors import DeviceBufferError

_try_lock = mutex.try_lock
_unlock = mutex.unlock
B = TypeVar("B")


class Lock(Generic[B]):
    """Holds a buffer's lock for one atomic step; reusable and reentrant: the mutex counts.

    Args:
        buffer: The object that ``with`` returns.
        lock: The buffer's mutex.
    """

    __slots__ = ("_address", "_buffer", "_resolve")

    def __init__(self, buffer: B, lock: mutex.RobustMutex) -> None:
        self._buffer = buffer
        self._address = lock.address
        self._resolve = lock.resolve

    def __enter__(self) -> B:
        result = _try_lock(self._address)
        if result:
            self._resolve(result)
        return self._buffer

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _unlock(self._address)


class Transaction(Lock[B]):
    """Holds a buffer's lock over several steps; reusable and reentrant.

    Args:
        buffer: The object that ``with`` returns.
        lock: The buffer's mutex.
        journal: Restores the buffer after an error.
        name: The name of the peripheral, for the error, if it must be connected; else "".
    """

    __slots__ = ("_header", "_journal", "_name")

    def __init__(
        self, buffer: B, lock: mutex.RobustMutex, journal: "Journal", name: str = ""
    ) -> None:
        super().__init__(buffer, lock)
        self._journal = journal
        self._header = journal.header
        self._name = name

    def __enter__(self) -> B:
        result = _try_lock(self._address)
        if result:
            self._resolve(result)
        header = self._header
        if self._name and not header.valid:
            _unlock(self._address)
            raise not_connected(self._name)
        if not header.depth:
            self._journal.begin()
        header.depth += 1
        return self._buffer

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        depth = self._header.depth - 1
        if not depth:
            if exc_type is not None:
                self._journal.roll_back()
            self._journal.end()
        self._header.depth = depth
        _unlock(self._address)


class Journal:
    """The copy of a buffer's contents before a transaction; all methods need the lock.

    The order of stores makes it crash-safe: the copy is complete before ``journal`` is set, and
    nothing changes before that. A process killed at any point leaves either no journal and an
    unchanged buffer, or a complete journal.

    Args:
        memory: The bytes of the segment.
        header: Its header.
        changing: The bytes that a transaction may change; the copy follows them.
    """

    __slots__ = ("_live", "_shadow", "header")

    def __init__(self, memory: memoryview, header: layout.Header, changing: slice) -> None:
        size = changing.stop - changing.start
        self.header = header
        self._live = memory[changing]
        self._shadow = memory[changing.stop : changing.stop + size]

    def begin(self) -> None:
        """Copy the current contents."""
        self._shadow[:] = self._live
        self.header.journal = 1

    def roll_back(self) -> None:
        """Restore the copy."""
        self._live[:] = self._shadow

    def end(self) -> None:
        """Discard the copy."""
        self.header.journal = 0

    def recover(self) -> None:
        """Roll back the unfinished transaction of a dead owner. Being killed here is harmless."""
        if self.header.journal:
            self.roll_back()
            self.end()
        self.header.depth = 0


def not_connected(name: str) -> DeviceBufferError:
    """Return the error of a buffer whose peripheral is not connected."""
    return DeviceBufferError(f"the {name} is not connected", device=name)
