"""Calls that a service has read and not begun yet.

Invariant: each peer has its turn. A peer that sends many calls delays its own, and has at most
    `PEER_MAX` of them here.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rt.protocol import rpc
from rt.remote.handler import Route

PEER_MAX = 128
"""Calls of one peer that may wait here; more of them are refused."""

TOTAL_MAX = 1024
"""Calls of all peers that may wait here."""


class Call(NamedTuple):
    """A call that waits.

    Attributes:
        peer: Identity of the caller.
        message: The call, without its arguments if there is a payload.
        route: Its method.
        payload: Bytes of a long message, which are decoded when its turn comes; empty for others.
    """

    peer: bytes
    message: rpc.Request | rpc.Notification
    route: Route
    payload: bytes = b""


class Inbox:
    """The calls that wait, in the order of their arrival for each peer."""

    def __init__(self) -> None:
        self._of_peer: dict[bytes, deque[Call]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Call]:
        for calls in self._of_peer.values():
            yield from calls

    def put(self, call: Call) -> bool:
        """Add a call; returns False if its peer has too many here, or all peers together have."""
        calls = self._of_peer.get(call.peer)
        if self._length >= TOTAL_MAX or (calls is not None and len(calls) >= PEER_MAX):
            return False
        if calls is None:
            calls = self._of_peer[call.peer] = deque()
        calls.append(call)
        self._length += 1
        return True

    def take(self) -> Call:
        """Remove and return the first call of the peer whose turn it is.

        Raises:
            StopIteration: No call waits.
        """
        peer = next(iter(self._of_peer))
        calls = self._of_peer.pop(peer)
        call = calls.popleft()
        if calls:
            self._of_peer[peer] = calls  # behind the other peers
        self._length -= 1
        return call

    def remove(self, unwanted: Iterable[Call]) -> None:
        """Remove calls that iterating has yielded."""
        identities = set(map(id, unwanted))
        if not identities:
            return
        kept = {
            peer: deque(each for each in calls if id(each) not in identities)
            for peer, calls in self._of_peer.items()
        }
        self._of_peer = {peer: calls for peer, calls in kept.items() if calls}
        self._length = sum(map(len, self._of_peer.values()))
