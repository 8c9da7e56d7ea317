"""Who may reach the robot from the network: said at the start, and told to whoever asks."""

import ipaddress

import msgspec

from rt import log
from rt.access.authenticator import UNKNOWN_KEY, Authenticator
from rt.config import Config
from rt.config.network import is_open, open_listeners
from rt.remote import Service, VerifyingNode
from rt.transport.address import interface_of


class StationsReport(msgspec.Struct, frozen=True):
    """What `stations` answers.

    Attributes:
        network: The addresses that other machines can reach.
        insecure: Whether they need no key.
        stations: Who has a key.
        admitted: Connections of stations since the robot started.
        refused: Connections with a key that does not count.
        refusals: All connections that were refused, by the reason.
        datagrams: Signed control datagrams since the robot started, and those that lacked a
            signature, by what became of them.
        commander: The station in control of the gamepads, keyed or not; null while control is free.
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
    """Tells who may reach the robot.

    Args:
        config: The options that the robot runs with, with addresses resolved.
        gate: Through which its sockets listen.
    """

    def __init__(self, config: Config, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._insecure = config.insecure
        self._network = [address for _, address in open_listeners(config)]
        self._updates = config.update_addr if _leaves_machine(config) else None
        self._controls: VerifyingNode | None = None
        self._log = log.get_logger()

    def announce(self) -> None:
        """Say in the log who may come in."""
        if self._network and self._insecure:
            self._log.warning(
                "the robot is open to the network without keys (insecure): whoever reaches it can drive it",
                addresses=self._network,
            )
        elif self._network:
            self._log.info(
                "the robot is open to the network for stations with a key",
                addresses=self._network,
                stations=sorted(self._authenticator.keyring.stations),
            )
        if self._updates:
            self._log.info(
                "device updates go to the network: anyone there may listen", address=self._updates
            )

    def watch(self, controls: Service) -> None:
        """Count from now on what a control service receives."""
        if isinstance(controls.node, VerifyingNode):
            self._controls = controls.node

    def report(self) -> StationsReport:
        """How it is now."""
        return StationsReport(
            self._network,
            bool(self._network) and self._insecure,
            sorted(self._authenticator.keyring.stations),
            self._authenticator.counters.admitted,
            self._authenticator.refusals.counts.get(UNKNOWN_KEY, 0),
            {str(verdict): count for verdict, count in self._controls.verdicts.items()}
            if self._controls
            else {},
            dict(self._authenticator.refusals.counts),
        )


def _leaves_machine(config: Config) -> bool:
    """Whether device updates leave this machine: to a group they go over the interface that `bind` means."""
    host = config.update_addr.removeprefix("udp://").rpartition(":")[0]
    try:
        group = ipaddress.ip_address(host).is_multicast
    except ValueError:
        group = False
    return is_open(f"udp://{interface_of(config.bind)}:0" if group else config.update_addr)
