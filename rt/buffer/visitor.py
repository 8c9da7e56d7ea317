"""Visitors: processes that the root did not start and that take part in the robot for a while, as a command of a person does.

The root keeps a desk, a Unix socket in the instance directory, which only the robot's user can reach. A visitor that connects is
given a free seat and the robot's eventfds, and has them for as long as the connection lives. When it ends, however that
happens, the seat's lease is taken away, so that what the visitor moved is disabled, and the visit is over: what was done for as
long as it lasts is undone by whoever did it, as a subscription is by the device process.

The format: one SOCK_SEQPACKET message from the desk, MessagePack of `Welcome`, with the doorbell and the bells of all seats as its
SCM_RIGHTS file descriptors (unix(7)). Nothing is ever sent to the desk.
"""

import array
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import trio

from rt import log
from rt.buffer.bells import FIRST_VISITOR_SEAT, SEATS, Bells
from rt.buffer.doorbell import Doorbell
from rt.buffer.lease import LeaseTable
from rt.errors import DeviceBufferError

NAME: Final = "visitors.sock"
_WELCOME_SIZE: Final = 64
_ANSWER_TIMEOUT: Final = 5.0
_BACKLOG: Final = 16
_INT: Final = array.array("i").itemsize


class Welcome(msgspec.Struct, frozen=True):
    """What a visitor is told: its seat, or None if all are taken."""

    seat: int | None


class Visitor(msgspec.Struct, frozen=True):
    """What a visitor has while it stays.

    Attributes:
        seat: Its seat, under which it may hold a lease and write.
        doorbell: Wakes the device process.
        bells: Wake this process, and others.
    """

    seat: int
    doorbell: Doorbell
    bells: Bells


class VisitorDesk:
    """The root's side.

    Args:
        directory: The instance directory.
        doorbell: Handed to visitors.
        bells: Handed to visitors.
        leases: Where a visitor's lease is taken away when it leaves.
    """

    def __init__(self, directory: Path, doorbell: Doorbell, bells: Bells, leases: LeaseTable) -> None:
        self._path = directory / NAME
        self._doorbell = doorbell
        self._bells = bells
        self._leases = leases
        self._free = set(range(FIRST_VISITOR_SEAT, SEATS))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive visitors until cancelled."""
        self._path.unlink(missing_ok=True)
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            await listener.bind(str(self._path))
            listener.listen(_BACKLOG)
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        connection, _ = await listener.accept()
                    except OSError as error:  # out of file descriptors, or it left already
                        log.get_logger().warning("a visitor cannot be received", reason=str(error))
                        await trio.sleep(1)
                        continue
                    nursery.start_soon(self._receive, connection)

    async def _receive(self, connection: trio.socket.SocketType) -> None:
        with connection, contextlib.suppress(OSError):
            if not self._free:
                await connection.send(msgspec.msgpack.encode(Welcome(None)))
                return
            seat = min(self._free)
            self._free.remove(seat)
            try:
                fds = array.array("i", [self._doorbell.fd, *self._bells.fds])
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
                await connection.sendmsg([msgspec.msgpack.encode(Welcome(seat))], rights)
                await connection.recv(1)  # ends when the visitor does
            finally:
                self._leases.revoke_slot(seat)
                self._leases.end_visit(seat)
                self._doorbell.ring()
                self._free.add(seat)


@contextlib.asynccontextmanager
async def visit(directory: Path) -> AsyncIterator[Visitor]:
    """Take part in the robot of an instance directory.

    Raises:
        DeviceBufferError: Its root does not answer, or all seats are taken.
    """
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, contextlib.ExitStack() as stack:
        try:
            with trio.fail_after(_ANSWER_TIMEOUT):
                await connection.connect(str(directory / NAME))
                message, ancillary, _, _ = await connection.recvmsg(
                    _WELCOME_SIZE, socket.CMSG_SPACE((SEATS + 1) * _INT)
                )
            fds = _received(ancillary)
            for fd in fds:
                stack.callback(os.close, fd)
            welcome = msgspec.msgpack.decode(message, type=Welcome)
        except trio.TooSlowError:
            raise DeviceBufferError(
                f"the root of the robot in {directory} did not answer within {_ANSWER_TIMEOUT:g} s: is it stopped?"
            ) from None
        except (OSError, msgspec.DecodeError) as error:
            raise DeviceBufferError(f"the robot in {directory} receives no visitors: {error}") from error
        if welcome.seat is None:
            count = SEATS - FIRST_VISITOR_SEAT
            raise DeviceBufferError(f"{count} commands take part in this robot already: end one of them")
        if len(fds) != SEATS + 1:
            raise DeviceBufferError(f"the robot in {directory} is of another version of rt")
        yield Visitor(welcome.seat, Doorbell(fds[0]), Bells(fds[1:], seat=welcome.seat))


def _received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The file descriptors that came with a message."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _INT])
    for fd in fds:
        os.set_inheritable(fd, False)
    return list(fds)
