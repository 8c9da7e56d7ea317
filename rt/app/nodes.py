"""The nodes of a process's sockets as the options describe them; they are not open yet."""

from collections.abc import Container

import zmq

from rt import log
from rt.config import Config
from rt.logs.hub import QUEUE_EVENTS
from rt.remote import DatagramNode, SocketNode
from rt.remote.signed_node import StationNode
from rt.transport.address import get_connection, interface_of


def client_node(config: Config, identity: str) -> SocketNode:
    """Return a DEALER that is connected to the router's frontend."""
    connections = [get_connection(config.router_frontend)]
    return SocketNode(zmq.DEALER, identity, connections=connections, options=config.client_option)


def service_node(config: Config, identity: str | bytes) -> SocketNode:
    """Return a DEALER that is connected to the router's backend."""
    connections = [get_connection(config.router_backend)]
    return SocketNode(zmq.DEALER, identity, connections=connections, options=config.service_option)


def log_node(config: Config, wanted: Container[str], level: str) -> SocketNode:
    """Return a SUB that receives the robot's log events of the wanted levels from ``level`` on."""
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
    """Return the node that receives gamepads."""
    return DatagramNode.from_address(config.control_addr, bind=True)


def station_node(config: Config) -> StationNode:
    """Return a node without a key that sends gamepads and reports which station has control."""
    target = DatagramNode.from_address(config.control_addr, bind=False)
    return StationNode(target.host, target.port, None)


def update_node(config: Config, *, bind: bool) -> DatagramNode:
    """Return the node that receives or sends device updates, on the robot's interface."""
    return DatagramNode.from_address(
        config.update_addr, bind=bind, interface=interface_of(config.bind)
    )
