"""What a person is told when an address cannot be bound, the same for every kind of socket."""

import errno

from rt.errors import ConfigError, InstanceBusyError


def bind_error(address: str, code: int | None, text: str | None) -> ConfigError | InstanceBusyError:
    """The error for a person when an address cannot be bound, from the error number of the system."""
    if code == errno.EADDRINUSE:
        return InstanceBusyError(
            f"{address} is in use by another program; stop that, or move this robot's ports with --port-base",
            address=address,
        )
    if code == errno.ENAMETOOLONG:
        return ConfigError(
            f"{address} is too long for a socket; use a shorter instance directory", address=address
        )
    return ConfigError(f"{address} cannot be bound: {text}", address=address)
