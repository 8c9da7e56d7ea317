"""A quota of unanswered messages for each peer of a router, so that no peer can flood a service.

All peers that send to a service share one libzmq queue, and when it is full every peer is refused.

Invariant: a peer with fewer than `MAX_UNANSWERED` unanswered messages is never refused, unless
other programs of its station have used up the station's quota. Beyond that, a message is refused
until a response arrives or earlier messages expire at `RATE`.
"""

import math

from rt.log.throttle import Bucket

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
    >>> [quota.spend(b"peer", 0.0) for _ in range(MAX_UNANSWERED + 1)].count(True)
    128
    >>> quota.record_answer(b"peer")
    >>> quota.spend(b"peer", 0.0), quota.spend(b"peer", 0.0), quota.spend(b"peer", 1.0)
    (True, False, True)
    """

    def __init__(self, scale: int = 1, *, limit: int = MAX_UNANSWERED, rate: float = RATE) -> None:
        self.limit = scale * limit
        self._interval = 1 / (scale * rate) if rate else math.inf
        self._buckets: dict[bytes, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def spend(self, peer: bytes, now: float) -> bool:
        """Count a message of a peer.

        Args:
            peer: The sender.
            now: Current time, in s.

        Returns:
            False if the quota is used up; the message is not counted then.
        """
        bucket = self._buckets.get(peer)
        if bucket is None:
            if len(self._buckets) >= PEERS_MAX:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[peer] = Bucket(self.limit, self._interval, now)
        if bucket.refill(now) < 1:
            return False
        bucket.tokens -= 1
        return True

    def record_answer(self, peer: bytes) -> None:
        """Count a message to a peer as the response to one of its own."""
        bucket = self._buckets.get(peer)
        if bucket is not None:
            bucket.tokens = min(self.limit, bucket.tokens + 1)

    def forget(self, peer: bytes) -> None:
        """Forget a peer that has disconnected."""
        self._buckets.pop(peer, None)
