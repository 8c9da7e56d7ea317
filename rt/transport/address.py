"""From an address that somebody binds to one that others connect to."""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit, urlunsplit

ANY = {"*", "0.0.0.0", "::"}  # noqa: S104 - compared with, not bound
LOOPBACK = "127.0.0.1"


def resolve_address(address: str, *, peer: str = LOOPBACK) -> str:
    """Replace a host that means every interface by one that can be connected to.

    Args:
        address: A ZMQ address.
        peer: The host to put in its place.

    Examples:
        >>> resolve_address("tcp://*:6000")
        'tcp://127.0.0.1:6000'
        >>> resolve_address("tcp:// *:6000")
        'tcp:// *:6000'
        >>> resolve_address("tcp://0.0.0.0:6000", peer="robot.local")
        'tcp://robot.local:6000'
        >>> resolve_address("ipc:///run/rt/default/router.sock")
        'ipc:///run/rt/default/router.sock'
    """
    parts = urlsplit(address)
    if parts.scheme == "ipc":
        return address
    host, _, port = parts.netloc.rpartition(":")
    if host.strip("[]") in ANY:
        return urlunsplit(parts._replace(netloc=f"{peer}:{port}"))
    return address


def get_connection(bindings: Collection[str]) -> str:
    """The best address to connect to among those that a peer has bound: one without the network if there is one.

    Raises:
        ValueError: There are no addresses.

    Examples:
        >>> get_connection(["tcp://*:6000"])
        'tcp://127.0.0.1:6000'
        >>> get_connection(["tcp://*:6000", "ipc:///tmp/rt.sock"])
        'ipc:///tmp/rt.sock'
        >>> get_connection([])
        Traceback (most recent call last):
        ...
        ValueError: must provide at least one address
    """
    if not bindings:
        raise ValueError("must provide at least one address")
    return min(map(resolve_address, bindings), key=lambda address: not address.startswith("ipc"))


def interface_of(bind: str) -> str:
    """The IPv4 address of the interface over which multicast goes, for the host that listeners bind.

    Examples:
        >>> interface_of("127.0.0.1"), interface_of("localhost"), interface_of("0.0.0.0")
        ('127.0.0.1', '127.0.0.1', '0.0.0.0')
    """
    if bind in ANY:
        return "0.0.0.0"  # noqa: S104 - the system's choice by its routes
    try:
        address = ipaddress.ip_address(bind.strip("[]"))
    except ValueError:
        return LOOPBACK
    return str(address) if address.version == 4 else LOOPBACK


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``tcp://HOST:PORT``. A machine may call itself localhost without IPv6, so that name is IPv4's."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    host = host.strip("[]")
    return "127.0.0.1" if host == "localhost" else host, int(port)
