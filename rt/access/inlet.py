"""A way into a ZMQ socket that only this process can use: a listening Unix socket whose name is removed at once.

rt accepts TCP connections itself, decides about each, and carries the bytes of those that it
permits through an inlet.
"""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import trio

from rt.transport.zmq_socket import Socket

_BACKLOG = 128
_PLACES = ("/run", "/tmp", "/dev/shm")  # noqa: S108 - the directory is this user's alone, and gone at once


class Inlet:
    """Binds a ZMQ socket to a nameless address, with the security options that the ZMQ socket has at this moment.

    Args:
        taker: The ZMQ socket. It closes its end when it is closed.

    Raises:
        OSError: There is no descriptor, or no directory for the socket.
    """

    def __init__(self, target: Socket) -> None:
        self._taker = target
        with _folder() as folder:
            path = folder / "s"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
                listening.bind(str(path))
                try:
                    listening.listen(_BACKLOG)
                    listening.setblocking(False)
                    # The file's inode stays as long as this descriptor, which is the only way to
                    # it.
                    self._file = os.open(path, os.O_PATH | os.O_CLOEXEC)
                    try:
                        self.endpoint = _hand_to(target, listening, path)
                    except BaseException:
                        os.close(self._file)
                        raise
                finally:
                    path.unlink()

    def close(self) -> None:
        """Make the inlet unreachable; connections through it stay."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def unbind(self) -> None:
        """End the connections through it too."""
        self.close()
        if not self._taker.closed:
            self._taker.unbind(self.endpoint)

    async def connect(self) -> trio.SocketStream:
        """A connection to the ZMQ socket.

        Raises:
            OSError: The ZMQ socket is closed, or there is no descriptor.
        """
        connection = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        try:
            await connection.connect(f"/proc/self/fd/{self._file}")
        except BaseException:
            connection.close()
            raise
        return trio.SocketStream(connection)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A directory of this user alone, for a moment.

    Raises:
        OSError: None of the usual places takes one.
    """
    failure = OSError("no directory for sockets")
    for place in filter(
        None, (os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), *_PLACES)
    ):
        folder = Path(place, f"rt-inlet-{secrets.token_hex(8)}")
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            failure = error
            continue
        try:
            yield folder
        finally:
            folder.rmdir()
        return
    raise failure


def _hand_to(target: Socket, listening: socket.socket, path: Path) -> str:
    descriptor = os.dup(listening.fileno())
    try:
        return target.bind(f"ipc://{path}", descriptor=descriptor)
    except BaseException:
        os.close(descriptor)
        raise
