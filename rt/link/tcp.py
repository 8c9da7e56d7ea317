"""Links over TCP."""

import contextlib
import os
import socket
import struct
from typing import Final

import trio

from rt.brake.output_queue import end_connection
from rt.link.link import CHUNK_SIZE, RECEIVE_SIZE, StreamLink, link_gone

_RESET: Final = struct.pack("ii", 1, 0)
"""Value of SO_LINGER (socket(7)) that closes a connection at once, with a reset."""


class SocketLink(StreamLink):
    """A link over TCP that reads and writes the socket itself.

    A line is silent most of the time, and then each layer that a message passes, cold in the
    processor's caches, costs more than the message. Direct access halves the time from a frame's
    arrival to its value.
    """

    _stream: trio.SocketStream

    def __init__(self, stream: trio.SocketStream, name: str, *, shared: bool = False) -> None:
        """Create a link.

        Args:
            stream: The connection.
            name: The name of the link for people.
            shared: Whether another process may have a duplicate of the socket; closing the link
                then ends the connection for both.
        """
        super().__init__(stream, name)
        self._shared = shared
        self._resets = False
        self._fd = stream.socket.fileno()

    def fileno(self) -> int | None:
        """See `Link.fileno`."""
        return self._fd if self._fd >= 0 else None

    def reset_at_close(self) -> None:
        """Let the connection end with a reset when the link is closed, as after a crash."""
        self._resets = True
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    async def aclose(self) -> None:
        """See `Link.aclose`."""
        self._announce_closing()
        if self._fd >= 0 and not self._resets:
            with contextlib.suppress(OSError):
                end_connection(self._fd)
                if self._shared:
                    self._stream.socket.shutdown(trio.socket.SHUT_RD)
        self._fd = -1
        await super().aclose()

    def receive_nowait(self) -> bytes | None:
        """See `Link.receive_nowait`."""
        try:
            data = os.read(self._fd, CHUNK_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            self._fileno()  # raises ClosedResourceError if this side closed the link
            raise link_gone(self.name, error) from error
        if not data:
            raise link_gone(self.name, None)
        return data

    async def _receive_some(self) -> bytes:
        while True:
            fd = self._fileno()
            await trio.lowlevel.wait_readable(fd)
            try:
                return os.read(fd, RECEIVE_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def _send_all(self, data: bytes) -> None:
        try:
            sent = os.write(self._fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError from error
        if sent < len(data):
            await self._stream.send_all(data[sent:])
        else:
            await trio.lowlevel.checkpoint()

    def _fileno(self) -> int:
        if self._fd < 0:
            raise trio.ClosedResourceError
        return self._fd
