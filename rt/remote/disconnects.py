"""Who has left a router: from connections, which come and go, to identities, which calls are made by.

The rule of this module: an identity counts as gone only when the last connection that it spoke over
is closed. What is kept is one entry for each connection that stands, however many identities come
and go.
"""

from collections.abc import Callable, Iterable, Iterator


class Disconnects:
    """Knows which identity speaks over which connection; iterates over the identities that are there.

    Args:
        on_takeover: FailureLog of an identity that speaks over another connection although its own
            still stands.

    >>> disconnects = Disconnects()
    >>> disconnects.record(7, b"a"), disconnects.record(8, b"b"), disconnects.record(9, b"b")
    (None, None, None)
    >>> disconnects.closed([7, 8])
    [b'a']
    >>> len(disconnects)
    1
    """

    def __init__(self, on_takeover: Callable[[bytes], None] | None = None) -> None:
        self._on_takeover = on_takeover
        self._speaker: dict[int, bytes] = {}
        self._connection: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._speaker)

    def connection_of(self, identity: bytes) -> int | None:
        """The newest connection that an identity speaks over."""
        return self._connection.get(identity)

    def __contains__(self, identity: object) -> bool:
        return identity in self._connection

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._connection))

    def record(self, connection: int, identity: bytes) -> bytes | None:
        """Note that an identity has spoken; returns the one whose connection had that number before, if that is gone."""
        before = self._speaker.get(connection)
        if before == identity or connection < 0:
            return None
        gone = self._close(connection)
        self._speaker[connection] = identity
        if identity in self._connection and self._on_takeover is not None:
            self._on_takeover(identity)
        self._connection[identity] = connection
        return gone

    def closed(self, connections: Iterable[int]) -> list[bytes]:
        """Forget connections that are closed; returns the identities that are gone with them."""
        return [identity for each in connections if (identity := self._close(each)) is not None]

    def _close(self, connection: int) -> bytes | None:
        identity = self._speaker.pop(connection, None)
        if identity is None or self._connection.get(identity) != connection:
            return None  # it has never spoken, or has another connection by now
        del self._connection[identity]
        return identity
