"""Waiting for a device's replies."""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from rt.errors import DeviceError
from rt.link.link import LinkGoneError

T = TypeVar("T")


class PendingReplies(Generic[T]):
    """Delivers replies to the tasks that wait for them, by key; other replies are dropped.

    Args:
        port: The name of the line, for errors.
    """

    def __init__(self, port: str) -> None:
        self._port = port
        self._waiting: list[_Slot[T]] = []
        self._closed = False

    async def wait(
        self, key: int, within: float, accept: Callable[[T], bool] = lambda _answer: True
    ) -> T:
        """Wait for the next reply of a key. A cancellation has no side effects.

        Args:
            key: The key.
            within: How long to wait in s.
            accept: Returns whether a reply of the key is the wanted one; must not raise.

        Raises:
            NoAnswerError: No reply in time.
            LinkGoneError: The device is gone.
        """
        if self._closed:
            raise self._gone()
        slot: _Slot[T] = _Slot(key, accept)
        self._waiting.append(slot)
        try:
            with trio.move_on_after(within):
                await slot.event.wait()
        finally:
            self._waiting.remove(slot)
        if slot.answers:
            return slot.answers[0]
        if self._closed:
            raise self._gone()
        raise NoAnswerError(f"{self._port}: no answer within {within:g} s", port=self._port)

    def is_awaited(self, key: int) -> bool:
        """Return whether a task waits for a reply of that key."""
        return any(slot.key == key and not slot.answers for slot in self._waiting)

    def answer(self, key: int, value: T) -> None:
        """Deliver a reply to every task that accepts it; the others keep waiting."""
        for slot in self._waiting:
            if slot.key == key and not slot.answers and slot.accept(value):
                slot.answers.append(value)
                slot.event.set()

    def close(self) -> None:
        """Raise `LinkGoneError` in every task that waits, now or later."""
        self._closed = True
        for slot in self._waiting:
            slot.event.set()

    def _gone(self) -> LinkGoneError:
        return LinkGoneError(f"{self._port} disconnected", port=self._port)


class NoAnswerError(DeviceError):
    """A device did not answer in time."""


class _Slot(Generic[T]):
    """One waiting task; holds at most one reply."""

    __slots__ = ("accept", "answers", "event", "key")

    def __init__(self, key: int, accept: Callable[[T], bool]) -> None:
        self.key = key
        self.accept = accept
        self.event = trio.Event()
        self.answers: list[T] = []
