"""How many messages a peer of a router may have under way to services, so that one peer's flood leaves room for the others.

A queue of libzmq is shared by all peers that write to one service, and a full one refuses the next
peer. Invariant: a peer with fewer than `MAX_UNANSWERED` unanswered messages is never refused, unless the
other programs of its station have filled the station's quota. Each further message is refused until
an answer has come, or as many messages count as answered as `RATE` says; so a peer that keeps more
than `MAX_UNANSWERED` calls open is refused.
"""

MAX_UNANSWERED = 128
"""Messages of a peer that may be unanswered."""

RATE = 250.0
"""Messages a second that count as answered although no answer has come, as for notifications."""

STATION_SCALE = 2
"""The programs of one station together have the quota of so many peers: with one for each, 64 connections fill the queue of a service."""

PEERS_MAX = 4096
"""Peers whose messages are counted; beyond it the one that was counted first begins anew."""


class Quota:
    """Counts what each peer, or each station, has sent to services and has not been answered.

    Args:
        scale: How many times `MAX_UNANSWERED` and `RATE` each of them has.

    >>> quota = Quota()
    >>> [quota.spend(b"peer", 0.0) for _ in range(MOST + 1)].count(True) == MOST
    True
    >>> quota.answered(b"peer")
    >>> quota.spend(b"peer", 0.0), quota.spend(b"peer", 0.0), quota.spend(b"peer", 1.0)
    (True, False, True)
    """

    def __init__(self, scale: int = 1) -> None:
        self.most = scale * MAX_UNANSWERED
        self._rate = scale * RATE
        self._spent: dict[bytes, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._spent)

    def spend(self, peer: bytes, now: float) -> bool:
        """Count a message of a peer at a time in s; False if the peer has too many under way, and it is not counted."""
        entry = self._spent.get(peer)
        if entry is None:
            if len(self._spent) >= PEERS_MAX:
                del self._spent[next(iter(self._spent))]
            self._spent[peer] = 1.0, now
            return True
        spent, since = entry
        spent = max(0.0, spent - (now - since) * self._rate)
        if spent + 1 > self.most:
            return False
        self._spent[peer] = spent + 1, now
        return True

    def record_answer(self, peer: bytes) -> None:
        """Count a message to a peer as the answer to one of its own."""
        entry = self._spent.get(peer)
        if entry is not None:
            self._spent[peer] = max(0.0, entry[0] - 1), entry[1]

    def forget(self, peer: bytes) -> None:
        """Forget a peer that has gone."""
        self._spent.pop(peer, None)
