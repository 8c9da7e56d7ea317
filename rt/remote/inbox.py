"""A queue of the calls that a service has read but not started.

Invariant: peers take turns, and each has at most `PEER_MAX` calls here, so a peer that sends many
calls delays only its own.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from rt.protocol import rpc
from rt.remote.handler import Route

Message: TypeAlias = rpc.Request | rpc.Notification

PEER_MAX = 128
"""Maximum number of waiting calls of one peer; further ones are refused."""

TOTAL_MAX = 1024
"""Maximum number of waiting calls of all peers."""


class Call(NamedTuple):
    """A waiting call.

    Attributes:
        peer: Identity of the caller.
        message: The call; without its arguments if `payload` is set.
        route: The method.
        payload: Encoded message of a long call, decoded when the call starts; empty for others.
    """

    peer: bytes
    message: Message
    route: Route
    payload: bytes = b""

    @property
    def key(self) -> tuple[bytes, int] | None:
        """Identification of a request among all peers; None for a notification."""
        return (self.peer, self.message.id) if isinstance(self.message, rpc.Request) else None


class Inbox:
    """Waiting calls: round robin between peers, in order of arrival for each peer."""

    def __init__(self) -> None:
        self._of_peer: dict[bytes, deque[Call]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Call]:
        for calls in self._of_peer.values():
            yield from calls

    def put(self, call: Call) -> bool:
        """Add a call; return False if a limit is reached."""
        calls = self._of_peer.get(call.peer)
        if self._length >= TOTAL_MAX or (calls is not None and len(calls) >= PEER_MAX):
            return False
        if calls is None:
            calls = self._of_peer[call.peer] = deque()
        calls.append(call)
        self._length += 1
        return True

    def take(self) -> Call:
        """Remove and return the first call of the next peer.

        Raises:
            StopIteration: No call is waiting.
        """
        peer = next(iter(self._of_peer))
        calls = self._of_peer.pop(peer)
        call = calls.popleft()
        if calls:
            self._of_peer[peer] = calls  # moves the peer to the end
        self._length -= 1
        return call

    def remove(self, is_unwanted: Callable[[Call], bool]) -> list[Call]:
        """Remove and return the calls that meet a condition."""
        removed = list(filter(is_unwanted, self))
        if removed:
            kept = list(itertools.filterfalse(is_unwanted, self))
            self._of_peer, self._length = {}, 0
            for each in kept:
                self.put(each)
        return removed
