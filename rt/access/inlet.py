"""An inlet, a private entry to a ZMQ socket: a listening Unix socket that is unlinked at once.

rt accepts TCP connections itself, and relays the admitted ones to the ZMQ socket through an inlet.
"""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import trio

from rt.transport.zmq_socket import Socket

CHUNK = 1 << 16
"""Maximum number of bytes that a relay buffers in each direction."""
_BACKLOG = 128
_DIRECTORIES = ("/run", "/tmp", "/dev/shm")  # noqa: S108 - a private subdirectory is used


class Inlet:
    """A private binding of a ZMQ socket, with the socket's current security options.

    Args:
        target: The ZMQ socket; closing it closes the binding.

    Raises:
        OSError: No descriptor is free, or no directory for the socket is writable.
    """

    def __init__(self, target: Socket) -> None:
        self._taker = target
        with _temporary_directory() as directory:
            path = directory / "s"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
                listening.bind(str(path))
                try:
                    listening.listen(_BACKLOG)
                    listening.setblocking(False)
                    # Keeps the inode reachable after the unlink, for this process only.
                    self._file = os.open(path, os.O_PATH | os.O_CLOEXEC)
                    try:
                        self.endpoint = _bind(target, listening, path)
                    except BaseException:
                        os.close(self._file)
                        raise
                finally:
                    path.unlink()

    def close(self) -> None:
        """Accept no new connections; existing ones stay open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def unbind(self) -> None:
        """Accept no new connections, and close the existing ones."""
        self.close()
        if not self._taker.closed:
            self._taker.unbind(self.endpoint)

    async def connect(self) -> trio.SocketStream:
        """Open a connection to the ZMQ socket.

        Raises:
            OSError: The ZMQ socket is closed, or no descriptor is free.
        """
        connection = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        try:
            await connection.connect(f"/proc/self/fd/{self._file}")
        except BaseException:
            connection.close()
            raise
        return trio.SocketStream(connection)


@contextlib.contextmanager
def _temporary_directory() -> Iterator[Path]:
    """Create a temporary directory of mode 0700.

    Raises:
        OSError: No parent directory is writable.
    """
    failure = OSError("no writable directory for sockets")
    for parent in filter(
        None, (os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), *_DIRECTORIES)
    ):
        directory = Path(parent, f"rt-inlet-{secrets.token_hex(8)}")
        try:
            directory.mkdir(mode=0o700)
        except OSError as error:
            failure = error
            continue
        try:
            yield directory
        finally:
            directory.rmdir()
        return
    raise failure


def _bind(target: Socket, listening: socket.socket, path: Path) -> str:
    descriptor = os.dup(listening.fileno())
    try:
        return target.bind(f"ipc://{path}", descriptor=descriptor)
    except BaseException:
        os.close(descriptor)
        raise


async def relay(outer: trio.SocketStream, inner: trio.SocketStream) -> None:
    """Relay bytes both ways until the inner end closes or either end breaks; then close both.

    Errors of the connections are not raised. Cancelling closes both ends.
    """
    async with outer, inner, trio.open_nursery() as nursery:
        nursery.start_soon(_relay_one_way, outer, inner, nursery.cancel_scope)
        await _relay_one_way(inner, outer, nursery.cancel_scope)
        nursery.cancel_scope.cancel()


async def _relay_one_way(
    source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
) -> None:
    """Relay bytes and end of file; cancel both directions if a connection is broken."""
    try:
        while data := await source.receive_some(CHUNK):
            await sink.send_all(data)
        await sink.send_eof()  # libzmq then closes its end
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        scope.cancel()
