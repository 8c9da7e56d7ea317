"""The lifeline: a socket pair whose end of file tells a child that its parent is dead.

The parent writes one message with the child's settings before it starts the child, and nothing
afterwards. So end of file means that the parent has died, or has closed its end to stop the child.
``PR_SET_PDEATHSIG`` cannot replace it: it is tied to the thread that forked, and trio forks in a
worker thread.

The message is a 32-bit little-endian length, followed by that many bytes.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import time

import trio

from rt.errors import LocalProtocolError, RemoteProtocolError

LIFELINE = "{lifeline}"
"""Placeholder in a command for the descriptor number of the child's end of the lifeline."""

CHANNEL = "{channel}"
"""Placeholder in a command for the descriptor number of the child's end of the channel."""

MAX_MESSAGE = 65536
"""The longest settings message (bytes). It fits into the socket's buffer before the child runs."""

_LENGTH = struct.Struct("<I")
_MAX_LENGTH = 1 << 20
_SPARE_FROM = 200
_F_SETSIG = getattr(fcntl, "F_SETSIG", 10)  # the fcntl module has the name from Python 3.13


def open_lifeline(message: bytes | None) -> tuple[socket.socket, socket.socket]:
    """Create a lifeline that already contains the settings.

    Args:
        message: The child's settings, or None for a child that does not read its lifeline.

    Returns:
        The parent's end and the child's end, both not inheritable.

    Raises:
        LocalProtocolError: The message does not fit into the socket's buffer.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    data = b"" if message is None else _LENGTH.pack(len(message)) + message
    try:
        sent = ours.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        ours.close()
        theirs.close()
        raise LocalProtocolError(f"settings of {len(data)} bytes do not fit into the lifeline")
    return ours, theirs


def arm(end: socket.socket, group: int) -> None:
    """Have the kernel kill a process group when the other end of this lifeline is closed.

    The processes need not cooperate: a stopped one, or one that holds the GIL, is killed too. This
    lasts as long as a process keeps ``end``, or a duplicate of it, open. From now on a write to the
    other end kills the group too.

    Args:
        end: The child's end.
        group: The ID of the group.
    """
    fd = end.fileno()
    fcntl.fcntl(fd, fcntl.F_SETOWN, -group)
    fcntl.fcntl(fd, _F_SETSIG, int(signal.SIGKILL))
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


class Lifeline:
    """The child's end of a lifeline.

    Args:
        fd: The descriptor that this process was started with; it becomes close-on-exec.

    Raises:
        LocalProtocolError: The descriptor is not a socket.
    """

    def __init__(self, fd: int) -> None:
        try:
            self._socket = socket.socket(fileno=fd)
        except OSError as error:
            raise LocalProtocolError(
                f"file descriptor {fd} is not a lifeline: {error.strerror}", fd=fd
            ) from None
        self._socket.set_inheritable(False)
        self._spare = -1

    def fileno(self) -> int:
        """Return the descriptor, which is readable when the parent has died."""
        return self._socket.fileno()

    def read_message(self, timeout: float = 5.0) -> bytes:
        """Read the settings: once, first of all, and outside of an event loop.

        Args:
            timeout: The time limit (s).

        Raises:
            RemoteProtocolError: The parent died or sent nothing, or the message is too long.
        """
        deadline = time.monotonic() + timeout
        try:
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
            if length > _MAX_LENGTH:
                raise RemoteProtocolError(
                    f"lifeline message of {length} bytes is longer than {_MAX_LENGTH}",
                    length=length,
                )
            return self._read(length, deadline)
        except TimeoutError:
            raise RemoteProtocolError(
                f"received no settings on the lifeline within {timeout:g} s"
            ) from None
        finally:
            self._socket.setblocking(False)

    async def closed(self) -> None:
        """Wait until the parent has died. A checkpoint; may be called again after a cancel."""
        self._socket.setblocking(False)
        while not self.is_closed():
            await trio.lowlevel.wait_readable(self._socket)
        await trio.lowlevel.checkpoint()

    def is_closed(self) -> bool:
        """Return whether the parent has died; does not wait."""
        try:
            return not self._socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True  # the parent died before it read all that this process sent

    def kill_group_at_eof(self) -> None:
        """Have the kernel kill this process's group when the parent dies; at once if it is dead.

        Call this after `read_message`, in a process that leads its group or shares it with its
        parent's consent.
        """
        if self._spare < 0:
            # A duplicate with a high number keeps the kernel's watch if other code closes or
            # replaces the first descriptor.
            with contextlib.suppress(OSError):  # the descriptor limit is lower than that number
                self._spare = fcntl.fcntl(self._socket.fileno(), fcntl.F_DUPFD_CLOEXEC, _SPARE_FROM)
        arm(self._socket, os.getpgrp())
        if self.is_closed():
            os.killpg(0, signal.SIGKILL)

    def close(self) -> None:
        """Close the lifeline. The death of the parent is not noticed any more."""
        self._socket.close()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                chunk = self._socket.recv(size - len(data))
            except ConnectionError:
                chunk = b""
            if not chunk:
                raise RemoteProtocolError("the parent died before it sent the settings")
            data += chunk
        return bytes(data)
