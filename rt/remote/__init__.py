"""Remote calls: ZMQ sockets and datagrams for trio, clients, services, and the router between them."""

from rt.remote.bounds import Bounds
from rt.remote.client import Client
from rt.remote.counters import Counters
from rt.remote.datagram import DatagramNode
from rt.remote.gate import Gate
from rt.remote.handler import Handler, MethodInfo, route
from rt.remote.loghub import LogHub, LogPublisher
from rt.remote.node import Node, SocketNode
from rt.remote.peer import DatagramPeers
from rt.remote.router import Router
from rt.remote.service import Service
from rt.remote.signed import StationNode, VerifyingNode
from rt.remote.socket import Socket, terminate

__all__ = [
    "Bounds",
    "Client",
    "Counters",
    "DatagramNode",
    "DatagramPeers",
    "Gate",
    "Handler",
    "LogHub",
    "LogPublisher",
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
