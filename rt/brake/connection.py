"""What connects the device process with the brake. The root makes it once, so that it outlives restarts of either."""

import os
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

from rt.brake import heartbeat

FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Ends(NamedTuple):
    """The descriptors of one side.

    Attributes:
        channel: One end of a SOCK_SEQPACKET pair for the messages of `rt.brake.protocol`.
        bell: An eventfd by which the device process wakes the brake.
        memory: The memory of `rt.brake.heartbeat`.
    """

    channel: int
    bell: int
    memory: int


class Connection:
    """Both sides, as the root has them; `close` closes its descriptors.

    Attributes:
        device: What the device process inherits.
        brake: What the brake inherits.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        memory = heartbeat.make()
        self.device = Ends(ours.detach(), bell, memory)
        self.brake = Ends(theirs.detach(), bell, memory)

    def close(self) -> None:
        """Close all descriptors."""
        for fd in {*self.device, *self.brake}:
            os.close(fd)


def adopt(fds: Sequence[int]) -> Ends:
    """The inherited ends; processes that this one starts do not inherit them."""
    for fd in fds:
        os.set_inheritable(fd, False)
    return Ends(*fds)
