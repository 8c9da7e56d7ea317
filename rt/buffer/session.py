"""Visitors: processes that the root did not start and that take part in the robot for a while, as a command of a person does.

The root keeps a desk, a Unix socket in the instance directory, which only the robot's user can
reach. A visitor that connects is given the robot's shared memory, a free seat and the robot's
eventfds, and has the seat for as long as the connection lives. When it ends, however that happens,
the seat's lease is taken away, so that what the visitor moved is disabled, and the visit is over:
what was done for as long as it lasts is undone by whoever did it, as a subscription is by the
device process. A process that only reads buffers asks for no seat.

The format: one SOCK_SEQPACKET message to the desk, MessagePack of `Request`, and one from it,
MessagePack of `Registration`, with the arena, the doorbell and the bells of all seats as its
SCM_RIGHTS file descriptors (unix(7)).
"""

import array
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import trio

from rt import log
from rt.buffer.arena import Arena
from rt.buffer.lease import Bar, LeaseTable
from rt.buffer.wakeup import FIRST_SESSION_SLOT, SLOTS, Wakeups
from rt.buffer.write_event import WriteEvent
from rt.errors import DeviceBufferError, RemoteProtocolError
from rt.instance import is_file
from rt.ownership import user
from rt.protocol import structs

SOCKET_NAME: Final = "visitors.sock"
_MESSAGE_SIZE: Final = 64
_ANSWER_TIMEOUT: Final = 5.0
_BACKLOG: Final = 16
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred of unix(7)
_INT: Final = array.array("i").itemsize


class Request(msgspec.Struct, frozen=True):
    """What a visitor asks for: whether it needs a seat, to write and to wait for changes."""

    needs_slot: bool = msgspec.field(name="seated")


class Registration(msgspec.Struct, frozen=True):
    """The seat of a visitor; None if it asked for none, or all are taken."""

    slot: int | None = msgspec.field(name="seat")


class Session(msgspec.Struct, frozen=True):
    """What a visitor has while it stays.

    Attributes:
        prefix: What the names of the robot's shared memory begin with, until the visit ends.
        slot: Its slot, under which it may hold a lease and write.
        write_event: Wakes the device process.
        wakeups: Wake this process, and others.
    """

    prefix: str
    slot: int
    write_event: WriteEvent
    wakeups: Wakeups


class Registrar:
    """The root's side.

    Args:
        directory: The instance directory.
        arena: Handed to visitors.
        write_event: Handed to visitors.
        wakeups: Handed to visitors.
        leases: Where a visitor's lease is taken away when it leaves.
    """

    def __init__(
        self,
        directory: Path,
        arena: Arena,
        write_event: WriteEvent,
        wakeups: Wakeups,
        leases: LeaseTable,
    ) -> None:
        self._path = directory / SOCKET_NAME
        self._arena = arena
        self._write_event = write_event
        self._wakeups = wakeups
        self._leases = leases
        self._free = set(range(FIRST_SESSION_SLOT, SLOTS))
        self._bar = Bar.NONE
        self._nursery: trio.Nursery | None = None
        self._listening = trio.CancelScope()
        self._file: os.stat_result | None = None

    def bar(self, bar: Bar) -> None:
        """Let no visitor move devices, present or coming, until this is called with `Bar.NONE`. Returns at once."""
        self._bar = bar
        for slot in range(FIRST_SESSION_SLOT, SLOTS):
            if slot not in self._free:
                self._admit(slot)
        self._write_event.signal()

    def _admit(self, slot: int) -> None:
        """Let the visitor of a seat move devices, unless there is a bar."""
        if self._bar:
            self._leases.bar(slot, self._bar)
        else:
            self._leases.unbar(slot)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive visitors until cancelled.

        Raises:
            OSError: The socket cannot be made.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                self.rebind()
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def rebind(self) -> bool:
        """Listen at a new socket if the file of the old one is not there, while `run` does; whether that was so.

        Raises:
            OSError: The socket cannot be made.
        """
        if self._nursery is None or (self._file is not None and is_file(self._path, self._file)):
            return False
        listener = trio.socket.from_stdlib_socket(_bound(self._path))
        self._file = self._path.lstat()
        self._listening.cancel("the socket was removed")
        self._listening = trio.CancelScope()
        self._nursery.start_soon(self._listen, listener, self._listening)
        return True

    async def _listen(self, listener: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        assert self._nursery is not None
        with listener, scope:
            while True:
                try:
                    connection, _ = await listener.accept()
                except OSError as error:  # out of file descriptors, or it left already
                    log.get_logger().warning("a visitor cannot be received", reason=str(error))
                    await trio.sleep(1)
                    continue
                self._nursery.start_soon(self._receive, connection)

    async def _receive(self, connection: trio.socket.SocketType) -> None:
        with connection, contextlib.suppress(OSError, RemoteProtocolError, trio.TooSlowError):
            with trio.fail_after(_ANSWER_TIMEOUT):
                request: Request = structs.decode(await connection.recv(_MESSAGE_SIZE), Request)
            if not request.needs_slot:
                await self._answer(connection, None, self._arena.fd)
                return
            if not self._free:
                await self._answer(connection, None)
                return
            slot = min(self._free)
            self._free.remove(slot)
            self._admit(slot)
            try:
                await self._answer(
                    connection, slot, self._arena.fd, self._write_event.fd, *self._wakeups.fds
                )
                await connection.recv(1)  # ends when the visitor does
            finally:
                self._leases.bar(slot, Bar.IDLE)
                self._leases.end_session(slot)
                self._write_event.signal()
                self._free.add(slot)

    async def _answer(
        self, connection: trio.socket.SocketType, slot: int | None, *fds: int
    ) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        await connection.sendmsg([msgspec.msgpack.encode(Registration(slot))], rights)


@contextlib.asynccontextmanager
async def open_session(directory: Path) -> AsyncIterator[Session]:
    """Take part in the robot of an instance directory.

    Raises:
        DeviceBufferError: Its root does not answer, or all seats are taken.
    """
    async with _ask(directory, Request(needs_slot=True)) as (registration, fds):
        if registration.slot is None and not fds:
            count = SLOTS - FIRST_SESSION_SLOT
            raise DeviceBufferError(
                f"{count} commands take part in this robot already: end one of them"
            )
        if registration.slot is None or len(fds) != SLOTS + 2:
            raise _other_version(directory)
        arena, write_event, *wakeups = fds
        yield Session(
            _prefix(arena),
            registration.slot,
            WriteEvent(write_event),
            Wakeups(wakeups, slot=registration.slot),
        )


@contextlib.asynccontextmanager
async def read(directory: Path) -> AsyncIterator[str]:
    """What the names of the shared memory of the robot of an instance directory begin with, until the end of the block.

    Raises:
        DeviceBufferError: Its root does not answer.
    """
    async with _ask(directory, Request(needs_slot=False)) as (_, fds):
        if len(fds) != 1:
            raise _other_version(directory)
        yield _prefix(fds[0])


@contextlib.asynccontextmanager
async def _ask(directory: Path, request: Request) -> AsyncIterator[tuple[Registration, list[int]]]:
    """The answer of the desk and the descriptors that came with it, which are closed in the end, as the connection is."""
    with (
        trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        contextlib.ExitStack() as stack,
    ):
        try:
            with trio.fail_after(_ANSWER_TIMEOUT):
                await connection.connect(str(directory / SOCKET_NAME))
                _refuse_stranger(connection, directory)
                await connection.send(msgspec.msgpack.encode(request))
                message, ancillary, _, _ = await connection.recvmsg(
                    _MESSAGE_SIZE, socket.CMSG_SPACE((SLOTS + 2) * _INT), socket.MSG_CMSG_CLOEXEC
                )
            fds = _received(ancillary)
            for fd in fds:
                stack.callback(os.close, fd)
            registration: Registration = structs.decode(message, Registration)
        except trio.TooSlowError:
            raise DeviceBufferError(
                f"the root of the robot in {directory} did not answer within {_ANSWER_TIMEOUT:g} s: is it stopped?"
            ) from None
        except (OSError, RemoteProtocolError) as error:
            raise DeviceBufferError(
                f"the robot in {directory} receives no visitors: {error}"
            ) from error
        yield registration, fds


def _refuse_stranger(connection: trio.socket.SocketType, directory: Path) -> None:
    """Refuse a desk of another user: its shared memory is not that of a robot of this user.

    Raises:
        DeviceBufferError: The process that listens belongs to another user; says to whom.
    """
    _, uid, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if uid not in {0, os.geteuid()}:
        raise DeviceBufferError(
            f"the robot in {directory} belongs to {user(uid)}: run rt as that user"
        )


def _prefix(arena: int) -> str:
    return f"fd:{arena}/"


def _other_version(directory: Path) -> DeviceBufferError:
    return DeviceBufferError(f"the robot in {directory} is of another version of rt")


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The file descriptors that came with a message."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _INT])
    return list(fds)
