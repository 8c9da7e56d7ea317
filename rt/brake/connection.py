"""The connection between the device process and the brake.

The root creates it once, so it outlives restarts of both processes.

Invariant: messages that an exited process did not read are discarded. A descriptor in an unread
queue stays open, and a line stays locked while a descriptor of it is open.
"""

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from rt.brake import heartbeat
from rt.brake.line import Line
from rt.brake.protocol import SIZE, Message, encode

FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_SPACE: Final = socket.CMSG_SPACE(4 * array.array("i").itemsize)


class Endpoint(NamedTuple):
    """The descriptors of one side.

    Attributes:
        channel: One end of a SOCK_SEQPACKET pair for the messages of `rt.brake.protocol`.
        wakeup: An eventfd with which the device process wakes the brake.
        memory: The memory of `rt.brake.heartbeat`.
    """

    channel: int
    wakeup: int
    memory: int


class Connection:
    """Both sides, as held by the root.

    Attributes:
        device: Inherited by the device process.
        brake: Inherited by the brake.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        memory = heartbeat.make()
        self.device = Endpoint(ours.detach(), wakeup, memory)
        self.brake = Endpoint(theirs.detach(), wakeup, memory)

    def discard(self, end: Endpoint, *, flush: bool) -> int:
        """Discard what an exited process did not read, before its successor starts. Does not block.

        Args:
            end: The endpoint of that process.
            flush: Whether the device process has exited. Then the unsent output of its lines is
                dropped, because the last close of a serial port waits for it.

        Returns:
            The number of descriptors closed.
        """
        closed = 0
        channel = socket.socket(
            fileno=end.channel
        )  # not a duplicate: there may be no free descriptor
        try:
            while True:
                try:
                    data, fds = receive(channel)
                except OSError:  # the channel is empty
                    return closed
                if not data:
                    return closed
                for fd in fds:
                    if flush:
                        Line("", fd).close()
                    else:
                        os.close(fd)
                    closed += 1
        finally:
            channel.detach()

    def close(self) -> None:
        """Close all descriptors."""
        for fd in {*self.device, *self.brake}:
            os.close(fd)


def send(channel: socket.socket, message: Message, fd: int | None = None) -> None:
    """Send a message, with a descriptor if given. Does not block.

    Raises:
        OSError: The channel does not take it.
    """
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
    channel.sendmsg([encode(message)], rights, FLAGS)


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one message and its descriptors, which are close-on-exec. Does not block.

    `socket.recv_fds` ignores its flags in some versions of Python, such as 3.11.

    Raises:
        BlockingIOError: There is no message.
        OSError: The other process exited with unread messages.
    """
    data, ancillary, _, _ = channel.recvmsg(SIZE, _SPACE, FLAGS | socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, rights in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    return data, list(fds)


def adopt(fds: Sequence[int]) -> Endpoint:
    """Return the inherited endpoint; child processes do not inherit it."""
    for fd in fds:
        os.set_inheritable(fd, False)
    return Endpoint(*fds)
