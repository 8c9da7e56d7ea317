"""Receiving from the ZMQ socket by which libzmq itself asks the ZAP handler.

It is no `rt.remote.Socket`, since it has to be a REP; one task makes all its calls, so that nobody
else can eat the news of its descriptor.
"""

from typing import cast

import trio
import zmq


async def receive(socket: "zmq.Socket[bytes]") -> list[bytes]:
    """Wait for the next message.

    A checkpoint, though not always one that gives way. A cancel loses nothing.

    Raises:
        zmq.ZMQError: The socket was closed.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    while True:
        try:
            return socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            # EVENTS takes in all news; only after that does the descriptor tell of later ones.
            if not cast(int, socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                await trio.lowlevel.wait_readable(cast(int, socket.getsockopt(zmq.FD)))
