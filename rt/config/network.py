"""Which addresses other machines can reach, and what a robot that has such has to have.

The rule of this module: an address counts as this machine's own only if it says so itself (an
address of the loopback interface, `localhost`, a socket file); everything else, a host name
included, counts as open to the network.
"""

from collections.abc import Collection

from rt.config.options import Config
from rt.errors import ConfigError

KEYED = ("router_frontend", "log_frontend", "control_addr")
"""Options of what may be open to the network, to those who have a key."""
KEYLESS = ("router_backend", "log_backend", "dev_vsd_addr")
"""Options of what only the robot's own processes and devices use, and what knows no keys."""


def is_open(address: str) -> bool:
    """Whether other machines may reach what is bound to an address.

    Examples:
        >>> [is_open(each) for each in ("ipc:///run/rt/x.sock", "tcp://127.0.0.1:6000", "udp://localhost:6002")]
        [False, False, False]
        >>> [is_open(each) for each in ("tcp://0.0.0.0:6000", "tcp://*:6000", "udp://robot.local:6002", "tcp://eth0:6000")]
        [True, True, True, True]
    """
    scheme, _, rest = address.partition("://")
    if scheme in {"ipc", "inproc"}:
        return False
    host = rest.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return False
    import ipaddress  # when a robot starts, not for every verb: start-up time counts

    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def open_listeners(config: Config) -> list[tuple[str, str]]:
    """The option and the address of every listener that other machines may reach; the addresses have to be resolved."""
    return [
        (option, address)
        for option, address in config.addresses()
        if option != "update_addr" and is_open(address)
    ]


def require_keys(config: Config, stations: Collection[str]) -> None:
    """Refuse a robot that strangers could drive.

    Args:
        config: The options, with addresses resolved.
        stations: The names of the stations that have a key.

    Raises:
        ConfigError: A listener is open to the network, and there is neither a key nor the option
            `insecure`; or it knows no keys.
    """
    if config.insecure:
        return
    for option, address in open_listeners(config):
        if option in KEYLESS:
            raise ConfigError(
                f"{option} = {address} is open to the network, and no key can protect it: let it listen on 127.0.0.1 only,"
                " or open the whole robot to everybody with --insecure",
                option=option,
                address=address,
            )
        if not stations:
            raise ConfigError(
                f"{option} = {address} is open to the network, and no driver's station has a key: make one with"
                " `rt keys new NAME`, or open the robot to everybody with --insecure",
                option=option,
                address=address,
            )
