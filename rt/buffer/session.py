"""Sessions: how a process that the root did not start, such as a command, takes part in a robot.

The root listens on a Unix socket in the instance directory, which only the robot's user can access.
A process that connects receives the robot's shared memory, a free slot and the robot's eventfds,
and holds the slot while the connection is open. When the connection ends, for whatever reason, the
root bars the slot's lease, so the devices that it moved are disabled, and ends the session: its
effects are rolled back, such as subscriptions by the device process. A process that only reads
buffers requests no slot.

The format: one SOCK_SEQPACKET message to the registrar, MessagePack of `Request`, and one back,
MessagePack of `Registration`, with the arena, the write event and the wakeups of all slots as
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
from rt.instance import is_same_file
from rt.ownership import user
from rt.protocol import structs

SOCKET_NAME: Final = "visitors.sock"
_MESSAGE_SIZE: Final = 64
_ANSWER_TIMEOUT: Final = 5.0
_BACKLOG: Final = 16
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred of unix(7)
_INT: Final = array.array("i").itemsize


class Request(msgspec.Struct, frozen=True):
    """A request for a session; a process needs a slot to write and to wait for changes."""

    needs_slot: bool = msgspec.field(name="seated")


class Registration(msgspec.Struct, frozen=True):
    """The slot of a session; None if none was requested or all are taken."""

    slot: int | None = msgspec.field(name="seat")


class Session(msgspec.Struct, frozen=True):
    """What a process has during a session.

    Attributes:
        prefix: The prefix of the names of the robot's shared memory, until the session ends.
        slot: Its slot, under which it may hold a lease and write.
        write_event: Wakes the device process.
        wakeups: Wake this process and others.
    """

    prefix: str
    slot: int
    write_event: WriteEvent
    wakeups: Wakeups


class Registrar:
    """The root's side: accepts sessions.

    Args:
        directory: The instance directory.
        arena: Passed to sessions.
        write_event: Passed to sessions.
        wakeups: Passed to sessions.
        leases: The table in which a session's lease is barred when it ends.
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
        """Bar the leases of all current and future sessions, until called with `Bar.NONE`.

        Does not block.
        """
        self._bar = bar
        for slot in range(FIRST_SESSION_SLOT, SLOTS):
            if slot not in self._free:
                self._update_bar(slot)
        self._write_event.signal()

    def _update_bar(self, slot: int) -> None:
        """Unbar the lease of a session's slot, unless sessions are barred."""
        if self._bar:
            self._leases.bar(slot, self._bar)
        else:
            self._leases.unbar(slot)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept sessions until cancelled.

        Raises:
            OSError: The socket cannot be created.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                self.rebind()
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def rebind(self) -> bool:
        """Listen on a new socket if the file of the old one was removed, while `run` runs.

        Returns:
            Whether the file was missing.

        Raises:
            OSError: The socket cannot be created.
        """
        if self._nursery is None or (
            self._file is not None and is_same_file(self._path, self._file)
        ):
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
                except OSError as error:  # out of file descriptors, or the peer has gone
                    log.get_logger().warning("session not accepted", reason=str(error))
                    await trio.sleep(1)
                    continue
                self._nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: trio.socket.SocketType) -> None:
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
            self._update_bar(slot)
            try:
                await self._answer(
                    connection, slot, self._arena.fd, self._write_event.fd, *self._wakeups.fds
                )
                await connection.recv(1)  # returns when the peer closes the connection
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
    """Open a session with the robot of an instance directory.

    Raises:
        DeviceBufferError: Its root does not answer, or all slots are taken.
    """
    async with _ask(directory, Request(needs_slot=True)) as (registration, fds):
        if registration.slot is None and not fds:
            count = SLOTS - FIRST_SESSION_SLOT
            raise DeviceBufferError(
                f"all {count} slots for commands are in use; end a command of this robot"
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
    """Open a session without a slot; yield the prefix of the names of the robot's shared memory.

    Raises:
        DeviceBufferError: The robot's root does not answer.
    """
    async with _ask(directory, Request(needs_slot=False)) as (_, fds):
        if len(fds) != 1:
            raise _other_version(directory)
        yield _prefix(fds[0])


@contextlib.asynccontextmanager
async def _ask(directory: Path, request: Request) -> AsyncIterator[tuple[Registration, list[int]]]:
    """Yield the registrar's answer and descriptors; close them and the connection at exit."""
    with (
        trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        contextlib.ExitStack() as stack,
    ):
        try:
            with trio.fail_after(_ANSWER_TIMEOUT):
                await connection.connect(str(directory / SOCKET_NAME))
                _check_owner(connection, directory)
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
                f"the root of the robot in {directory} did not answer within"
                f" {_ANSWER_TIMEOUT:g} s; is it stopped?"
            ) from None
        except (OSError, RemoteProtocolError) as error:
            raise DeviceBufferError(
                f"cannot open a session with the robot in {directory}: {error}"
            ) from error
        yield registration, fds


def _check_owner(connection: trio.socket.SocketType, directory: Path) -> None:
    """Check the owner of the registrar: the memory of another user's process is not trusted.

    Raises:
        DeviceBufferError: The listening process belongs to another user, who is named.
    """
    _, uid, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if uid not in {0, os.geteuid()}:
        raise DeviceBufferError(
            f"the robot in {directory} belongs to {user(uid)}; run rt as that user"
        )


def _prefix(arena: int) -> str:
    return f"fd:{arena}/"


def _other_version(directory: Path) -> DeviceBufferError:
    return DeviceBufferError(f"the robot in {directory} runs another version of rt")


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
    """Return the file descriptors of a message."""
    fds = array.array("i")
    for level, type_, data in ancillary:
        if (level, type_) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _INT])
    return list(fds)
