"""A map between the connections of a router and the identities that use them.

Invariant: an identity is disconnected only when its newest connection is closed. There is one entry
for each open connection, so memory does not grow with the number of identities seen.
"""

from collections.abc import Callable, Iterable, Iterator


class Disconnects:
    """The identity of each open connection; iterates over the connected identities.

    Args:
        on_takeover: Called with an identity that sends over a new connection while its previous
            one is still open.

    >>> disconnects = Disconnects()
    >>> disconnects.record(7, b"a"), disconnects.record(8, b"b"), disconnects.record(9, b"b")
    (None, None, None)
    >>> disconnects.remove([7, 8])
    [b'a']
    >>> len(disconnects)
    1
    """

    def __init__(self, on_takeover: Callable[[bytes], None] | None = None) -> None:
        self._on_takeover = on_takeover
        self._identity: dict[int, bytes] = {}
        self._connection: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._identity)

    def connection_of(self, identity: bytes) -> int | None:
        """Return the newest connection of an identity, if any."""
        return self._connection.get(identity)

    def __contains__(self, identity: object) -> bool:
        return identity in self._connection

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._connection))

    def record(self, connection: int, identity: bytes) -> bytes | None:
        """Record the sender of a message.

        Returns:
            The identity that used this connection number before, if that is now disconnected.
        """
        before = self._identity.get(connection)
        if before == identity or connection < 0:
            return None
        gone = self._remove(connection)
        self._identity[connection] = identity
        if identity in self._connection and self._on_takeover is not None:
            self._on_takeover(identity)
        self._connection[identity] = connection
        return gone

    def remove(self, connections: Iterable[int]) -> list[bytes]:
        """Remove closed connections; return the identities that are disconnected by that."""
        return [identity for each in connections if (identity := self._remove(each)) is not None]

    def _remove(self, connection: int) -> bytes | None:
        identity = self._identity.pop(connection, None)
        if identity is None or self._connection.get(identity) != connection:
            return None  # nothing was received over it, or the identity has a newer connection
        del self._connection[identity]
        return identity
