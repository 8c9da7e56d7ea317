"""The answers to ZAP requests (RFC 27): pyzmq's own, with the decision about a key left to the gate.

pyzmq answers in a thread (`zmq.auth.thread`) or on asyncio (`zmq.auth.asyncio`); neither may run in rt. What both build on,
`zmq.auth.base.Authenticator`, does no waiting of its own: whoever owns its socket reads the requests and hands them in.
"""

from collections.abc import Callable

import zmq
from zmq.auth.base import Authenticator

from rt.remote.socket import FILE_DOMAIN


class Door(Authenticator):
    """Answers requests about CURVE keys in one domain.

    Args:
        domain: The ZAP domain of the sockets that it speaks for.
        admit: Gives the name of the station with a public key (Z85) that connects from an IP address, or None.
        context: Where the sockets belong.
    """

    def __init__(
        self, domain: str, admit: Callable[[str, str], str | None], context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        super().__init__(context)
        self._admit = admit
        self._origin = ""
        self._station = ""
        self.configure_curve_callback(domain, self)

    async def handle_zap_message(self, msg: list[bytes]) -> None:
        """Answer one request; needs nothing that would have to be awaited."""
        if msg[2:3] == [FILE_DOMAIN] and msg[5:6] == [b"NULL"]:
            self._send_zap_reply(msg[1], b"200", b"OK", "")
            return
        self._origin = msg[3].decode(errors="replace") if len(msg) > 3 else ""
        await super().handle_zap_message(msg)

    def callback(self, _domain: str, public: bytes) -> bool:
        """Whether a key counts; called by the authenticator, which knows it in Z85."""
        self._station = self._admit(public.decode(), self._origin) or ""
        return bool(self._station)

    def curve_user_id(self, client_public_key: bytes) -> str:  # noqa: ARG002 - the signature of pyzmq
        """What libzmq notes on each message of the connection: the name of the station that was admitted just now."""
        return self._station
