"""Where the sockets of a process of the robot connect: nodes as the options describe them, not open yet."""

from collections.abc import Container

import zmq

from rt import log
from rt.config import Config
from rt.logs.hub import QUEUE_EVENTS
from rt.remote import DatagramNode, SocketNode, StationNode
from rt.transport.address import get_connection, interface_of


def client_node(config: Config, identity: str) -> SocketNode:
    """A DEALER that is connected to the router's frontend."""
    connections = [get_connection(config.router_frontend)]
    return SocketNode(zmq.DEALER, identity, connections=connections, options=config.client_option)


def service_node(config: Config, identity: str | bytes) -> SocketNode:
    """A DEALER that is connected to the router's backend."""
    connections = [get_connection(config.router_backend)]
    return SocketNode(zmq.DEALER, identity, connections=connections, options=config.service_option)


def log_node(config: Config, wanted: Container[str], level: str) -> SocketNode:
    """A SUB that is given the robot's log events of the levels that are wanted and at least as severe as one."""
    least = log.LEVELS[level]
    options: dict[int, int | bytes] = {zmq.RCVHWM: QUEUE_EVENTS}
    return SocketNode(
        zmq.SUB,
        connections=[get_connection(config.log_frontend)],
        subscriptions=[
            name for name, severity in log.LEVELS.items() if name in wanted and severity >= least
        ],
        options=options,
    )


def control_node(config: Config) -> DatagramNode:
    """Where gamepads arrive."""
    return DatagramNode.from_address(config.control_addr, bind=True)


def station_node(config: Config) -> StationNode:
    """Where gamepads are sent from, without a key; tells whether another station has control."""
    where = DatagramNode.from_address(config.control_addr, bind=False)
    return StationNode(where.host, where.port, None)


def update_node(config: Config, *, bind: bool) -> DatagramNode:
    """Where device updates arrive, or are sent from, by the interface that the robot is bound to."""
    return DatagramNode.from_address(
        config.update_addr, bind=bind, interface=interface_of(config.bind)
    )
