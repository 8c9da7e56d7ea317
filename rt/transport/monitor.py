"""A parser for the events of a socket monitor (`Socket.monitor`); see zmq_socket_monitor(3).

pyzmq's own parser imports asyncio.
"""

import struct
from collections.abc import Sequence

_EVENT = struct.Struct("=Hi")


def parse_event(frames: Sequence[bytes]) -> tuple[int, int]:
    """Return the `zmq.Event` of a message, and its value."""
    event, value = _EVENT.unpack(frames[0])
    return event, value
