"""Which listeners other machines can reach, and what they require.

Invariant: an address is local only if it says so itself (an address of the loopback interface,
`localhost`, a socket file); everything else, including a host name, is open to the network.
"""

from collections.abc import Collection

from rt.config.options import Config
from rt.errors import ConfigError

KEYED = ("router_frontend", "log_frontend", "control_addr")
"""Options of the listeners that may be open to stations with a key."""
KEYLESS = ("router_backend", "log_backend", "dev_vsd_addr")
"""Options of the listeners without keys, for the robot's own processes and devices."""


def is_open(address: str) -> bool:
    """Whether other machines can reach a listener at an address.

    Examples:
        >>> local = ("ipc:///run/rt/x.sock", "tcp://127.0.0.1:6000", "udp://localhost:6002")
        >>> [is_open(each) for each in local]
        [False, False, False]
        >>> network = ("tcp://0.0.0.0:6000", "tcp://*:1", "udp://robot.local:2", "tcp://eth0:1")
        >>> [is_open(each) for each in network]
        [True, True, True, True]
    """
    scheme, _, rest = address.partition("://")
    if scheme in {"ipc", "inproc"}:
        return False
    host = rest.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return False
    import ipaddress  # only robots need it, and the start-up time of the other verbs counts

    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def open_listeners(config: Config) -> list[tuple[str, str]]:
    """Return option and address of each listener that other machines can reach.

    Args:
        config: The options, with addresses resolved.
    """
    return [
        (option, address)
        for option, address in config.addresses()
        if option != "update_addr" and is_open(address)
    ]


def require_keys(config: Config, stations: Collection[str]) -> None:
    """Refuse a robot that other machines could drive without a key.

    Args:
        config: The options, with addresses resolved.
        stations: Names of the stations that have a key.

    Raises:
        ConfigError: A listener is open to the network without the option `insecure`, and either no
            station has a key or the listener does not support keys.
    """
    if config.insecure:
        return
    for option, address in open_listeners(config):
        if option in KEYLESS:
            fault = (
                "and keys cannot protect it; use 127.0.0.1, or open the whole robot to everybody"
                " with --insecure"
            )
        elif not stations:
            fault = (
                "and no driver's station has a key; make one with `rt keys new NAME`, or open the"
                " robot to everybody with --insecure"
            )
        else:
            continue
        raise ConfigError(
            f"{option} = {address} is open to the network, {fault}", option=option, address=address
        )
