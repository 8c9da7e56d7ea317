"""Reports of who may reach the robot from the network: log events at the start, and `stations`."""

import ipaddress

import msgspec

from rt import log
from rt.access.authenticator import UNKNOWN_KEY, Authenticator
from rt.config import Config
from rt.config.network import is_open, open_listeners
from rt.remote import Service
from rt.remote.signed_node import VerifyingNode
from rt.transport.address import interface_of


class StationsReport(msgspec.Struct, frozen=True):
    """The result of `stations`.

    Attributes:
        network: Addresses that other machines can reach.
        insecure: Whether they need no key.
        stations: Names of the stations with a key.
        admitted: Number of connections of stations since the robot started.
        refused: Number of connections with an unknown key.
        refusals: Number of refused connections by reason.
        datagrams: Number of control datagrams since the robot started by verdict on the signature.
        commander: The station in control of the gamepads, with or without a key; null while
            control is free.
    """

    network: list[str]
    insecure: bool
    stations: list[str]
    admitted: int
    refused: int
    datagrams: dict[str, int]
    refusals: dict[str, int]
    commander: str | None = None


class Access:
    """Reports who may reach the robot.

    Args:
        config: The options of the robot, with addresses resolved.
        authenticator: Binds the listening sockets of the robot.
    """

    def __init__(self, config: Config, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._insecure = config.insecure
        self._network = [address for _, address in open_listeners(config)]
        self._updates = config.update_addr if _leaves_machine(config) else None
        self._controls: VerifyingNode | None = None
        self._log = log.get_logger()

    def announce(self) -> None:
        """Log who may reach the robot."""
        if self._network and self._insecure:
            self._log.warning(
                "robot open to the network without keys (insecure)",
                addresses=self._network,
                risk="anyone who can reach it can drive it",
            )
        elif self._network:
            self._log.info(
                "robot open to the network for stations with a key",
                addresses=self._network,
                stations=sorted(self._authenticator.keyring.stations),
            )
        if self._updates:
            self._log.info("device updates sent to the network", address=self._updates)

    def watch(self, controls: Service) -> None:
        """Include the datagrams that a control service receives in the report."""
        if isinstance(controls.node, VerifyingNode):
            self._controls = controls.node

    def report(self) -> StationsReport:
        """Return the current state."""
        return StationsReport(
            self._network,
            bool(self._network) and self._insecure,
            sorted(self._authenticator.keyring.stations),
            self._authenticator.admitted,
            self._authenticator.refusals.counts.get(UNKNOWN_KEY, 0),
            {str(verdict): count for verdict, count in self._controls.verdicts.items()}
            if self._controls
            else {},
            dict(self._authenticator.refusals.counts),
        )


def _leaves_machine(config: Config) -> bool:
    """Whether device updates leave this machine; multicast uses the interface of `bind`."""
    host = config.update_addr.removeprefix("udp://").rpartition(":")[0]
    try:
        group = ipaddress.ip_address(host).is_multicast
    except ValueError:
        group = False
    return is_open(f"udp://{interface_of(config.bind)}:0" if group else config.update_addr)
