"""Remote calls: nodes over ZMQ and UDP, clients, services, and the router between them."""

from rt.remote.bounds import Bounds
from rt.remote.client import Client
from rt.remote.datagram import DatagramNode
from rt.remote.handler import Handler, MethodInfo, route
from rt.remote.node import Node, SocketNode
from rt.remote.router import Router
from rt.remote.service import Service
from rt.remote.signed_node import StationNode, VerifyingNode

__all__ = [
    "Bounds",
    "Client",
    "DatagramNode",
    "Handler",
    "MethodInfo",
    "Node",
    "Router",
    "Service",
    "SocketNode",
    "StationNode",
    "VerifyingNode",
    "route",
]
