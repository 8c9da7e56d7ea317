"""What libzmq tells of a socket's connections, on the socket that `Socket.monitor` gives; see zmq_socket_monitor(3).

What pyzmq has for that drags asyncio in.
"""

import struct
from collections.abc import Sequence

import zmq

CONNECTIONS = int(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
"""What `Socket.monitor` is asked for to learn which connections come and go; `parse_connection_event` reads it."""

_EVENT = struct.Struct("=Hi")


def parse_event(frames: Sequence[bytes]) -> tuple[int, int]:
    """Which of `zmq.Event` a message is, and the value that comes with it."""
    event, value = _EVENT.unpack(frames[0])
    return event, value


def parse_connection_event(frames: Sequence[bytes]) -> tuple[int, bool]:
    """The number of a connection, and whether it stands now."""
    event, number = parse_event(frames)
    return number, event == zmq.EVENT_ACCEPTED
