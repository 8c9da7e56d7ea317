"""Waiting for what a device answers."""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from rt.errors import DeviceError
from rt.link.link import LinkGoneError

T = TypeVar("T")


class PendingReplies(Generic[T]):
    """Hands answers to the tasks that wait for them, by key. An answer that nobody waits for is forgotten.

    Args:
        port: The name of the line, for errors.
    """

    def __init__(self, port: str) -> None:
        self._port = port
        self._waiting: dict[int, list[_Slot[T]]] = {}
        self._closed = False

    async def wait(
        self, key: int, within: float, accept: Callable[[T], bool] = lambda _answer: True
    ) -> T:
        """Wait at most ``within`` s for the next answer of that key. A cancel leaves nothing behind.

        Args:
            key: The key.
            within: How long to wait in s.
            accept: Whether an answer is the one; it is asked for each answer of the key, and may
                not raise.

        Raises:
            NoAnswerError: No answer in time.
            LinkGoneError: The device is gone.
        """
        if self._closed:
            raise self._gone()
        slot: _Slot[T] = _Slot(accept)
        self._waiting.setdefault(key, []).append(slot)
        try:
            with trio.move_on_after(within):
                await slot.event.wait()
        finally:
            slots = self._waiting.get(key, [])
            if slot in slots:
                slots.remove(slot)
            if not slots:
                self._waiting.pop(key, None)
        if slot.answers:
            return slot.answers[0]
        if self._closed:
            raise self._gone()
        raise NoAnswerError(f"{self._port} did not answer within {within:g} s", port=self._port)

    def is_awaited(self, key: int) -> bool:
        """Whether a task waits for an answer of that key."""
        return key in self._waiting

    def answer(self, key: int, value: T) -> None:
        """Give an answer to every task that waits for it; the others keep waiting."""
        others = []
        for slot in self._waiting.pop(key, ()):
            if slot.accept(value):
                slot.answers.append(value)
                slot.event.set()
            else:
                others.append(slot)
        if others:
            self._waiting[key] = others

    def close(self) -> None:
        """Let every task that waits, now or later, know that the device is gone."""
        self._closed = True
        for slots in self._waiting.values():
            for slot in slots:
                slot.event.set()

    def _gone(self) -> LinkGoneError:
        return LinkGoneError(f"{self._port} is gone", port=self._port)


class NoAnswerError(DeviceError):
    """A device did not answer in time."""


class _Slot(Generic[T]):
    """One waiting task; at most one answer."""

    __slots__ = ("accept", "answers", "event")

    def __init__(self, accept: Callable[[T], bool]) -> None:
        self.accept = accept
        self.event = trio.Event()
        self.answers: list[T] = []
