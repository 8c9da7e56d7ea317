"""The ZAP handler (RFC 27), which tells libzmq whether the key of a CURVE client is valid.

pyzmq's handlers run in a thread or on asyncio, neither of which rt uses.
"""

from collections.abc import Callable

import zmq
from zmq.utils import z85

from rt.transport.zmq_socket import FILE_DOMAIN, Socket

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
        self._socket = Socket(zmq.ROUTER, options={zmq.LINGER: 0}, context=context)
        self._socket.bind(ADDRESS)

    def close(self) -> None:
        """Close the handler; libzmq then refuses every client."""
        self._socket.close()

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            sender, delimiter, *request = await self._socket.recv()
            self._socket.send_nowait((sender, delimiter, *self._answer(request)))

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
