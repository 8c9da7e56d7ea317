"""Holds a buffer's lock over several operations."""

from types import TracebackType
from typing import Generic, TypeVar

from rt.buffer import layout, mutex
from rt.errors import DeviceBufferError

_try_lock = mutex.try_lock
_unlock = mutex.unlock
B = TypeVar("B")


class Transaction(Generic[B]):
    """Holds a buffer's lock; one object serves all, since the mutex counts for itself.

    Args:
        buffer: What ``with`` gives.
        name: The peripheral, for errors.
        lock: The buffer's mutex.
        header: The buffer's header if it has to be valid, else None.
    """

    __slots__ = ("_address", "_buffer", "_header", "_name", "_resolve")

    def __init__(self, buffer: B, name: str, lock: mutex.RobustMutex, header: layout.Header | None = None) -> None:
        self._buffer = buffer
        self._name = name
        self._address = lock.address
        self._resolve = lock.resolve
        self._header = header

    def __enter__(self) -> B:
        result = _try_lock(self._address)
        if result:
            self._resolve(result)
        if self._header is not None and not self._header.valid:
            _unlock(self._address)
            raise not_connected(self._name)
        return self._buffer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _unlock(self._address)


def not_connected(name: str) -> DeviceBufferError:
    """The error of a buffer whose peripheral is not there."""
    return DeviceBufferError(f"the {name} is not connected", device=name)
