"""A table of handshakes, connections that have not proved a key, which decides whom to displace.

Invariant: a new connection is never refused in favor of older handshakes. It displaces the oldest
handshake of the host with most handshakes in the network with most handshakes, so a flood displaces
itself. Silent connections are displaced before those that have sent a greeting. All connections of
one user of this computer count as one host.
"""

import ipaddress
from collections import Counter
from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

import msgspec

_NETWORK_BITS = {4: 24, 6: 64}

K = TypeVar("K", bound=Hashable)


class Origin(msgspec.Struct, frozen=True):
    """The origin of a connection.

    Attributes:
        network: Network, all of whose hosts one attacker may control; or the local user.
        host: Host in that network.
    """

    network: str
    host: str


def origin(host: str, uid: int | None) -> Origin:
    """Return the origin of a connection.

    Args:
        host: Address of the peer.
        uid: User of this computer that owns the peer's socket, if known.

    Examples:
        >>> origin("192.168.7.9", None).network
        '192.168.7.0/24'
        >>> origin("127.9.0.1", 1000) == origin("127.0.0.1", 1000) != origin("127.0.0.1", 1001)
        True
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_loopback:
        user = f"user {uid}"
        return Origin(user, user)
    network = ipaddress.ip_network((address, _NETWORK_BITS[address.version]), strict=False)
    return Origin(str(network), host)


class Handshakes(Generic[K]):
    """A table of the connections that have not proved a key.

    A connection is silent until its greeting arrives. Afterwards it uses a ZMQ socket, so the limit
    is lower.

    >>> table = Handshakes[str]()
    >>> stranger, station = origin("10.0.1.3", None), origin("10.0.0.2", None)
    >>> [table.begin(name, stranger, limit=3, host_limit=3) for name in "abc"]
    [[], [], []]
    >>> table.begin("station", station, limit=3, host_limit=3)
    ['a']
    >>> table.begin("d", stranger, limit=3, host_limit=3)
    ['b']
    """

    def __init__(self) -> None:
        self._silent: dict[K, Origin] = {}
        self._greeted: dict[K, Origin] = {}

    def __len__(self) -> int:
        return len(self._silent) + len(self._greeted)

    def __contains__(self, key: K) -> bool:
        return key in self._silent or key in self._greeted

    def begin(self, key: K, where: Origin, *, limit: int, host_limit: int) -> list[K]:
        """Add a new, silent connection.

        Args:
            key: The connection.
            where: Its origin.
            limit: Maximum number of connections, at least 1.
            host_limit: Maximum number of connections of one host, at least 1.

        Returns:
            The displaced connections, which the caller has to close.
        """
        silent, greeted = (
            list(part.values()).count(where) for part in (self._silent, self._greeted)
        )
        ended = [
            _displace(self._silent if number < silent else self._greeted, where)
            for number in range(silent + greeted - host_limit + 1)
        ]
        while len(self) >= limit:
            ended.append(_displace(self._silent or self._greeted))
        self._silent[key] = where
        return ended

    def greeted(self, key: K, *, limit: int) -> list[K]:
        """Record that the greeting of a connection has arrived.

        Args:
            key: The connection.
            limit: Maximum number of connections with a greeting, at least 1.

        Returns:
            The displaced connections, which the caller has to close.
        """
        where = self._silent.pop(key, None)
        if where is None:
            return []
        ended = []
        while len(self._greeted) >= limit:
            ended.append(_displace(self._greeted))
        self._greeted[key] = where
        return ended

    def end(self, key: K) -> None:
        """Remove a connection that has proved a key or is closed, if it is in the table."""
        self._silent.pop(key, None)
        self._greeted.pop(key, None)


def _displace(part: dict[K, Origin], where: Origin | None = None) -> K:
    """Remove and return the oldest connection of a host, by default of the most crowded one."""
    host = where or _most_crowded(part.values())
    key = next(key for key, each in part.items() if each == host)
    del part[key]
    return key


def _most_crowded(origins: Collection[Origin]) -> Origin:
    """Return the host with most connections in the network with most connections."""
    networks = Counter([each.network for each in origins])
    network = max(networks, key=networks.__getitem__)
    hosts = Counter([each for each in origins if each.network == network])
    return max(hosts, key=hosts.__getitem__)
