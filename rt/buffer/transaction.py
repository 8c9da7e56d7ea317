"""Holds a buffer's lock over several operations, all of which count or none.

What is there when the outermost transaction begins is copied to the shadow before anything changes.
A transaction that ends with an exception puts it back; if its process is killed, whoever takes the
lock over does. So nobody ever sees half of it.
"""

from types import TracebackType
from typing import Generic, TypeVar

from rt.buffer import layout, mutex
from rt.errors import DeviceBufferError

_try_lock = mutex.try_lock
_unlock = mutex.unlock
B = TypeVar("B")


class Lock(Generic[B]):
    """Holds a buffer's lock, for one step that cannot be seen half done; one object serves all, since the mutex counts for itself.

    Args:
        buffer: What ``with`` gives.
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
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _unlock(self._address)


class Transaction(Lock[B]):
    """Holds a buffer's lock over several steps; reentrant, and one object serves all.

    Args:
        buffer: What ``with`` gives.
        lock: The buffer's mutex.
        journal: What takes the steps back.
        name: The peripheral if it has to be there, for the error; else "".
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
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        depth = self._header.depth - 1
        if not depth:
            if kind is not None:
                self._journal.roll_back()
            self._journal.end()
        self._header.depth = depth
        _unlock(self._address)


class Journal:
    """The copy of what was there before a transaction. All methods need the buffer's lock.

    The order of the stores is what keeps it whole: the copy is complete before ``journal`` says
    that it counts, and nothing changes before that. Whoever is killed anywhere leaves either no
    journal and nothing changed, or a whole journal.

    Args:
        memory: The bytes of the segment.
        header: Its header.
        changing: Which bytes a transaction may change; as many bytes after them are the copy.
    """

    __slots__ = ("_live", "_shadow", "header")

    def __init__(self, memory: memoryview, header: layout.Header, changing: slice) -> None:
        size = changing.stop - changing.start
        self.header = header
        self._live = memory[changing]
        self._shadow = memory[changing.stop : changing.stop + size]

    def begin(self) -> None:
        """Keep what is there now."""
        self._shadow[:] = self._live
        self.header.journal = 1

    def roll_back(self) -> None:
        """Put back what was kept."""
        self._live[:] = self._shadow

    def end(self) -> None:
        """Let what is there now count."""
        self.header.journal = 0

    def recover(self) -> None:
        """After the death of the lock's owner: put back what it had not finished. Being killed in here does no harm."""
        if self.header.journal:
            self.roll_back()
            self.end()
        self.header.depth = 0


def not_connected(name: str) -> DeviceBufferError:
    """The error of a buffer whose peripheral is not there."""
    return DeviceBufferError(f"the {name} is not connected", device=name)
