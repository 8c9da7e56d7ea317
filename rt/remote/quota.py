"""A quota of unanswered messages for each peer of a router, so that no peer can flood a service.

All peers that send to a service share one libzmq queue, and when it is full every peer is refused.

Invariant: a peer with fewer than `MAX_UNANSWERED` unanswered messages is never refused, unless
other programs of its station have used up the station's quota. Beyond that, a message is refused
until a response arrives or earlier messages expire at `RATE`.
"""

MAX_UNANSWERED = 128
"""Maximum number of unanswered messages of a peer."""

RATE = 250.0
"""Messages a second that expire without a response, such as notifications."""

STATION_SCALE = 2
"""Quota of a station, in quotas of a peer.

With one quota for each of its 64 connections, a station could fill the queue of a service.
"""

PEERS_MAX = 4096
"""Maximum number of counted peers; beyond it, the oldest entry is forgotten."""


class Quota:
    """Counters of unanswered messages to services, by peer or by station.

    Args:
        scale: Factor of `limit` and `rate`.
        limit: Maximum number of unanswered messages.
        rate: Messages a second that expire without a response.

    Attributes:
        limit: Maximum number of unanswered messages, with the factor applied.

    >>> quota = Quota()
    >>> [quota.spend(b"peer", 0.0) for _ in range(MOST + 1)].count(True) == MOST
    True
    >>> quota.answered(b"peer")
    >>> quota.spend(b"peer", 0.0), quota.spend(b"peer", 0.0), quota.spend(b"peer", 1.0)
    (True, False, True)
    """

    def __init__(self, scale: int = 1, *, limit: int = MAX_UNANSWERED, rate: float = RATE) -> None:
        self.limit = scale * limit
        self._rate = scale * rate
        self._spent: dict[bytes, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._spent)

    def spend(self, peer: bytes, now: float) -> bool:
        """Count a message of a peer.

        Args:
            peer: The sender.
            now: Current time, in s.

        Returns:
            False if the quota is used up; the message is not counted then.
        """
        entry = self._spent.get(peer)
        if entry is None:
            if len(self._spent) >= PEERS_MAX:
                del self._spent[next(iter(self._spent))]
            self._spent[peer] = 1.0, now
            return True
        spent, since = entry
        spent = max(0.0, spent - (now - since) * self._rate)
        if spent + 1 > self.limit:
            return False
        self._spent[peer] = spent + 1, now
        return True

    def record_answer(self, peer: bytes) -> None:
        """Count a message to a peer as the response to one of its own."""
        entry = self._spent.get(peer)
        if entry is not None:
            self._spent[peer] = max(0.0, entry[0] - 1), entry[1]

    def forget(self, peer: bytes) -> None:
        """Forget a peer that has disconnected."""
        self._spent.pop(peer, None)
