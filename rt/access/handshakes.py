"""Connections that have not proved a key yet, and which of them ends when there is no room for another one.

Invariant: a newcomer is never refused in favor of connections that have proved nothing. The
connection that ends is the oldest one of the host with most of them, in the network with most of
them, so a flood displaces itself; one that is silent ends before one that has sent a greeting. All
connections of one user of this computer count as one host.
"""

import ipaddress
from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

_NETWORK_BITS = {4: 24, 6: 64}

K = TypeVar("K", bound=Hashable)


class Origin(msgspec.Struct, frozen=True):
    """Where a connection comes from.

    Attributes:
        network: What is shared by hosts that one attacker may have all of.
        host: One host of it.
    """

    network: str
    host: str


def origin(host: str, uid: int | None) -> Origin:
    """The origin of a connection.

    Args:
        host: Address of the other end.
        uid: User of this computer that holds the other end, if it is known.

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


class _Part(Generic[K]):
    """Connections in the order in which they came, those of each host and the number of each network."""

    def __init__(self) -> None:
        self.origins: dict[K, Origin] = {}
        self._hosts: dict[Origin, dict[K, None]] = {}
        self._networks = Counter[str]()

    def add(self, key: K, where: Origin) -> None:
        self.origins[key] = where
        self._hosts.setdefault(where, {})[key] = None
        self._networks[where.network] += 1

    def remove(self, key: K) -> Origin | None:
        where = self.origins.pop(key, None)
        if where is None:
            return None
        del self._hosts[where][key]
        if not self._hosts[where]:
            del self._hosts[where]
        self._networks[where.network] -= 1
        if not self._networks[where.network]:
            del self._networks[where.network]
        return where

    def of_host(self, where: Origin) -> int:
        return len(self._hosts.get(where, ()))

    def oldest(self, where: Origin) -> K:
        return next(iter(self._hosts[where]))

    def worst(self) -> Origin:
        """The host with most connections of the network with most."""
        return max(
            self._hosts, key=lambda each: (self._networks[each.network], len(self._hosts[each]))
        )


class Handshakes(Generic[K]):
    """The connections that have not proved a key.

    A connection is silent until its greeting has come. Then it takes a ZMQ socket, so fewer of
    those are kept.

    >>> table = Handshakes[str]()
    >>> stranger, station = origin("10.0.1.3", None), origin("10.0.0.2", None)
    >>> [table.begin(name, stranger, most=3, most_of_host=3) for name in "abc"]
    [[], [], []]
    >>> table.begin("station", station, most=3, most_of_host=3)
    ['a']
    >>> table.begin("d", stranger, most=3, most_of_host=3)
    ['b']
    """

    def __init__(self) -> None:
        self._silent = _Part[K]()
        self._greeted = _Part[K]()

    def __len__(self) -> int:
        return len(self._silent.origins) + len(self._greeted.origins)

    def __contains__(self, key: K) -> bool:
        return key in self._silent.origins or key in self._greeted.origins

    def begin(self, key: K, where: Origin, *, most: int, most_of_host: int) -> list[K]:
        """Count a new connection, which is silent yet.

        Args:
            key: The connection.
            where: Where it comes from.
            most: Connections that may be here, at least 1.
            most_of_host: Connections of one host that may be here, at least 1.

        Returns:
            The connections that have to end; they are not counted any more.
        """
        ended = []
        while self._silent.of_host(where) + self._greeted.of_host(where) >= most_of_host:
            ended.append(
                self._displace(
                    self._silent if self._silent.of_host(where) else self._greeted, where
                )
            )
        while len(self) >= most:
            ended.append(self._displace(self._silent if self._silent.origins else self._greeted))
        self._silent.add(key, where)
        return ended

    def greeted(self, key: K, *, most: int) -> list[K]:
        """Note that the greeting of a connection has come.

        Args:
            key: The connection.
            most: Connections whose greeting has come that may be here, at least 1.

        Returns:
            The connections that have to end, as above.
        """
        where = self._silent.remove(key)
        if where is None:
            return []
        ended = []
        while len(self._greeted.origins) >= most:
            ended.append(self._displace(self._greeted))
        self._greeted.add(key, where)
        return ended

    def end(self, key: K) -> None:
        """Forget a connection: it has proved a key, or has ended. Does nothing if it is not here."""
        self._silent.remove(key)
        self._greeted.remove(key)

    def _displace(self, part: _Part[K], where: Origin | None = None) -> K:
        key = part.oldest(where or part.worst())
        part.remove(key)
        return key
