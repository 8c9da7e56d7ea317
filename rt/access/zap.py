"""The ZAP handler (RFC 27), which tells libzmq whether the key of a CURVE client is valid.

pyzmq's handlers run in a thread or on asyncio, neither of which rt uses.
"""

from collections.abc import Callable
from typing import cast

import trio
import zmq
from zmq.utils import z85

from rt.transport.zmq_socket import FILE_DOMAIN

ADDRESS = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_KEY_BYTES = 32


class ZapHandler:
    """A handler of libzmq's requests about CURVE keys.

    Args:
        admit: Returns the station of a public key (Z85) for a ZAP domain, or None to refuse it.
        context: ZMQ context.
    """

    def __init__(
        self, admit: Callable[[str, bytes], str | None], context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        self._admit = admit
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ADDRESS)

    def close(self) -> None:
        """Close the handler; libzmq then refuses every client."""
        self._socket.close()

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            self._socket.send_multipart(self._answer(await _receive(self._socket)))
            await trio.lowlevel.checkpoint()

    def _answer(self, request: list[bytes]) -> list[bytes]:
        if request[2:3] == [FILE_DOMAIN] and request[5:6] == [b"NULL"]:
            return [_VERSION, request[1], b"200", b"OK", b"", b""]
        if (
            len(request) != 7
            or request[0] != _VERSION
            or request[5] != b"CURVE"
            or len(request[6]) != _KEY_BYTES
        ):
            return [_VERSION, request[1] if len(request) > 1 else b"", b"400", b"no key", b"", b""]
        _, number, domain, _, _, _, key = request
        station = self._admit(z85.encode(key).decode(), domain)
        if station is None:
            return [_VERSION, number, b"400", b"unknown key", b"", b""]
        return [_VERSION, number, b"200", b"OK", station.encode(), b""]


async def _receive(socket: "zmq.Socket[bytes]") -> list[bytes]:
    """Wait for the next message of a REP socket, which `rt.remote.Socket` does not support.

    A checkpoint, though not always one that yields. If cancelled, no message is lost. Only one task
    may use the socket: a call of another task could consume the edge of its descriptor.

    Raises:
        zmq.ZMQError: The socket was closed.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    while True:
        try:
            return socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            # Reading EVENTS processes all pending events; only then does the descriptor signal
            # later ones.
            if not cast(int, socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                await trio.lowlevel.wait_readable(cast(int, socket.getsockopt(zmq.FD)))
