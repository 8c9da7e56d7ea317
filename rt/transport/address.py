"""Conversions of socket addresses, and errors about addresses that cannot be bound."""

import errno
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit, urlunsplit

from rt.errors import ConfigError, InstanceBusyError

ANY = {"*", "0.0.0.0", "::"}  # noqa: S104 - compared with, not bound
LOOPBACK = "127.0.0.1"


def resolve_address(address: str, *, peer: str = LOOPBACK) -> str:
    """Replace a wildcard host by one to connect to.

    Args:
        address: A ZMQ address.
        peer: The replacement.

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
    """Return the best address to connect to of those that a peer has bound, preferably a file.

    Raises:
        ValueError: `bindings` is empty.

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
    """Return the IPv4 address of the multicast interface for the host that listeners bind.

    Examples:
        >>> interface_of("127.0.0.1"), interface_of("localhost"), interface_of("0.0.0.0")
        ('127.0.0.1', '127.0.0.1', '0.0.0.0')
    """
    if bind in ANY:
        return "0.0.0.0"  # noqa: S104 - leaves the choice to the routing table
    try:
        address = ipaddress.ip_address(bind.strip("[]"))
    except ValueError:
        return LOOPBACK
    return str(address) if address.version == 4 else LOOPBACK


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``tcp://HOST:PORT``, with localhost as the IPv4 address.

    On some machines the name localhost resolves to IPv6 although IPv6 is disabled.
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    host = host.strip("[]")
    return "127.0.0.1" if host == "localhost" else host, int(port)


def bind_error(address: str, code: int | None, text: str | None) -> ConfigError | InstanceBusyError:
    """Return the error for an address that cannot be bound.

    Args:
        address: The address.
        code: Error number.
        text: Description of the error by the system.
    """
    if code == errno.EADDRINUSE:
        return InstanceBusyError(
            f"{address} is in use by another program; "
            "stop that program, or choose other ports with --port-base",
            address=address,
        )
    if code == errno.ENAMETOOLONG:
        return ConfigError(
            f"{address} is too long for a socket; use a shorter instance directory", address=address
        )
    return ConfigError(f"cannot bind {address}: {text}", address=address)
