"""The ZAP handler (RFC 27): answers libzmq's questions whether the key of a CURVE client counts.

pyzmq's handlers run in a thread or on asyncio, which rt uses neither of.
"""

from collections.abc import Callable

import trio
import zmq
from zmq.utils import z85

from rt.transport.inproc import receive
from rt.transport.zmq_socket import FILE_DOMAIN

ADDRESS = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_KEY_BYTES = 32


class ZapHandler:
    """Answers requests about CURVE keys.

    Args:
        admit: Gives the name of the station that connects with a public key (Z85) to a ZAP domain,
            or None.
        context: Where the ZMQ sockets belong.
    """

    def __init__(
        self, admit: Callable[[str, bytes], str | None], context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        self._admit = admit
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ADDRESS)

    def close(self) -> None:
        """Answer no more: libzmq refuses every client from now on."""
        self._socket.close()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            self._socket.send_multipart(self._answer(await receive(self._socket)))
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
