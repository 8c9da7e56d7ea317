"""A parser for the events of a socket monitor (`Socket.monitor`); see zmq_socket_monitor(3).

pyzmq's own parser imports asyncio.
"""

import struct
from collections.abc import Sequence

import zmq

CONNECTIONS = int(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
"""Events of connections that open and close, for `parse_connection_event`."""

_EVENT = struct.Struct("=Hi")


def parse_event(frames: Sequence[bytes]) -> tuple[int, int]:
    """Return the `zmq.Event` of a message, and its value."""
    event, value = _EVENT.unpack(frames[0])
    return event, value


def parse_connection_event(frames: Sequence[bytes]) -> tuple[int, bool]:
    """Return the number of a connection, and whether it is open now."""
    event, number = parse_event(frames)
    return number, event == zmq.EVENT_ACCEPTED
