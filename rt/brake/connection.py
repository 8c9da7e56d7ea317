"""What connects the device process with the brake. The root makes it once, so that it outlives restarts of either.

Invariant: what a process that has ended did not read is discarded. A descriptor in a queue that is
not read stays open, and a line keeps its lock as long as a descriptor of it is open.
"""

import array
import os
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

from rt.brake import heartbeat
from rt.brake.line import Line
from rt.brake.protocol import SIZE

FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_SPACE: Final = socket.CMSG_SPACE(4 * array.array("i").itemsize)


class Endpoint(NamedTuple):
    """The descriptors of one side.

    Attributes:
        channel: One end of a SOCK_SEQPACKET pair for the messages of `rt.brake.protocol`.
        bell: An eventfd by which the device process wakes the brake.
        memory: The memory of `rt.brake.heartbeat`.
    """

    channel: int
    wakeup: int
    memory: int


class Connection:
    """Both sides, as the root has them; `close` closes its descriptors.

    Attributes:
        device: What the device process inherits.
        brake: What the brake inherits.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        memory = heartbeat.make()
        self.device = Endpoint(ours.detach(), wakeup, memory)
        self.brake = Endpoint(theirs.detach(), wakeup, memory)

    def discard(self, end: Endpoint, *, flush: bool) -> int:
        """Discard what a process has not read, after its end and before the next one is made. Does not wait.

        Args:
            end: The end of that process.
            flush: Whether the device process has ended: the unsent output of its lines is dropped
                then, since the last close of a serial port waits for it.

        Returns:
            How many descriptors were closed.
        """
        closed = 0
        channel = socket.socket(fileno=end.channel)  # no duplicate: there may be no descriptor left
        try:
            while True:
                try:
                    data, fds = receive(channel)
                except OSError:  # nothing is left
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


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it, which are close-on-exec from the beginning. Does not wait.

    Not `socket.recv_fds`, which ignores its flags in some versions of Python, 3.11 among them.

    Raises:
        BlockingIOError: There is no message.
        OSError: The other end has ended with unread messages.
    """
    data, ancillary, _, _ = channel.recvmsg(SIZE, _SPACE, FLAGS | socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, rights in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    return data, list(fds)


def adopt(fds: Sequence[int]) -> Endpoint:
    """The inherited ends; processes that this one starts do not inherit them."""
    for fd in fds:
        os.set_inheritable(fd, False)
    return Endpoint(*fds)
