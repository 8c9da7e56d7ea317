"""The lifeline: a pair of sockets by which a child learns that its parent is dead, however it died.

The parent writes the child's settings into its end once, before the child exists, and then nothing
ever; so the end of the stream means that the parent has ended or does not want the child any more.
``PR_SET_PDEATHSIG`` would not do: it is tied to the thread that forked, and trio forks in a worker
thread.

The message is a 32-bit little-endian length and as many bytes.
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
"""Placeholder in a command for the number of the file descriptor of the child's end of its lifeline."""

CHANNEL = "{channel}"
"""Placeholder in a command for the number of the file descriptor of the child's end of its channel."""

MAX_MESSAGE = 65536
"""The most bytes of a settings message: one that fits into the socket's buffer before the child exists."""

_LENGTH = struct.Struct("<I")
_MAX_LENGTH = 1 << 20
_SPARE_FROM = 200
_F_SETSIG = getattr(fcntl, "F_SETSIG", 10)  # the fcntl module names it only from Python 3.13 on


def open_lifeline(message: bytes | None) -> tuple[socket.socket, socket.socket]:
    """Make a lifeline with the settings already in it.

    Args:
        message: The child's settings, or None for a child that does not read its lifeline.

    Returns:
        Our end and the child's, both not inheritable.

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
        raise LocalProtocolError(f"settings of {len(data)} bytes do not fit into a lifeline")
    return ours, theirs


def arm(end: socket.socket, group: int) -> None:
    """Have the kernel kill a group of processes when the other end of this lifeline is closed.

    It needs nothing of the processes: one that is stopped, or holds the interpreter's lock, dies as
    well. It holds as long as one process has ``end``, or a copy of it, open; nothing may ever be
    written into the other end afterwards.

    Args:
        end: The child's end.
        group: The number of the group.
    """
    fd = end.fileno()
    fcntl.fcntl(fd, fcntl.F_SETOWN, -group)
    fcntl.fcntl(fd, _F_SETSIG, int(signal.SIGKILL))
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


class Lifeline:
    """The child's end."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._spare = -1

    @classmethod
    def adopt(cls, fd: int) -> "Lifeline":
        """Take over the descriptor that this process was started with; the processes that it starts do not inherit it.

        Raises:
            LocalProtocolError: The descriptor is not a socket.
        """
        try:
            end = socket.socket(fileno=fd)
        except OSError as error:
            raise LocalProtocolError(
                f"file descriptor {fd} is no lifeline: {error.strerror}", fd=fd
            ) from None
        end.set_inheritable(False)
        return cls(end)

    def fileno(self) -> int:
        """The descriptor: readable when the parent is gone."""
        return self._socket.fileno()

    def read_message(self, timeout: float = 5.0) -> bytes:
        """Read the settings; once, before anything else, and without an event loop.

        Args:
            timeout: Seconds that it may take.

        Raises:
            RemoteProtocolError: The parent is gone, silent, or said something else.
        """
        deadline = time.monotonic() + timeout
        try:
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
            if length > _MAX_LENGTH:
                raise RemoteProtocolError(
                    f"a lifeline begins with a message of {length} bytes", length=length
                )
            return self._read(length, deadline)
        except TimeoutError:
            raise RemoteProtocolError(
                f"no settings came through the lifeline within {timeout:g} s"
            ) from None
        finally:
            self._socket.setblocking(False)

    async def closed(self) -> None:
        """Wait until the parent is gone. A checkpoint; may be called again after a cancel, also by several tasks in turn."""
        self._socket.setblocking(False)
        while not self.is_closed():
            await trio.lowlevel.wait_readable(self._socket)
        await trio.lowlevel.checkpoint()

    def is_closed(self) -> bool:
        """Whether the parent is gone; does not wait."""
        try:
            return not self._socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            # The parent ended with something of ours unread: gone all the same.
            return True

    def kill_group_at_eof(self) -> None:
        """Have the kernel kill our whole group, ourselves included, as soon as the parent is gone; at once if it is.

        Call it after `read_message`, in a process that is leader of its group or was started into
        it with its parent's consent.
        """
        if self._spare < 0:
            # The kernel's watch lasts as long as one descriptor does: code that closes or replaces
            # this one does not end it.
            with contextlib.suppress(OSError):  # the limit of descriptors is lower than that
                self._spare = fcntl.fcntl(self._socket.fileno(), fcntl.F_DUPFD_CLOEXEC, _SPARE_FROM)
        arm(self._socket, os.getpgrp())
        if self.is_closed():
            os.killpg(0, signal.SIGKILL)

    def close(self) -> None:
        """Give the lifeline up; without it nothing tells that the parent is gone."""
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
                raise RemoteProtocolError("the parent ended before it had given its settings")
            data += chunk
        return bytes(data)
