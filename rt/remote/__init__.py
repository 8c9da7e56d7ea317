"""Remote calls: nodes over ZMQ and UDP, clients, services, and the router between them."""

from rt.access.authenticator import Authenticator
from rt.access.peer import DatagramPeers
from rt.remote.bounds import Bounds
from rt.remote.client import Client
from rt.remote.datagram import DatagramNode
from rt.remote.handler import Handler, MethodInfo, route
from rt.remote.node import Node, SocketNode
from rt.remote.router import Router
from rt.remote.service import Service
from rt.remote.signed import StationNode, VerifyingNode
from rt.transport.counters import Counters
from rt.transport.zmq_socket import Socket, terminate

__all__ = [
    "Authenticator",
    "Bounds",
    "Client",
    "Counters",
    "DatagramNode",
    "DatagramPeers",
    "Handler",
    "MethodInfo",
    "Node",
    "Router",
    "Service",
    "Socket",
    "SocketNode",
    "StationNode",
    "VerifyingNode",
    "route",
    "terminate",
]
