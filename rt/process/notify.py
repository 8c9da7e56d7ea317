"""sd_notify sockets: a parent receives the notices of one child, and a child sends them.

Each child has its own socket, so a datagram needs no proof of its sender. rt's own children inherit
one end of a socket pair (`Channel`), which works without a file and without a free descriptor.
Other programs use a socket file in the instance directory, which other users cannot enter
(`Listener`). `rt.protocol.notify` defines the datagrams.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, Self

import trio

from rt.protocol import notify

VARIABLE = "NOTIFY_SOCKET"

FD_VARIABLE = "RT_NOTIFY"
"""The variable with ``FD:INODE`` of the inherited end of a `Channel`.

The inode shows whether the descriptor with this number is that end.
"""

REBIND_INTERVAL = 0.5
"""Time without a datagram after which the socket file is checked (s)."""


class Receiver:
    """The parent's end of one child's notices; as a context manager it is closed at the end.

    Attributes:
        fds: The descriptors that the child inherits, until `started`.
    """

    fds: tuple[int, ...] = ()
    _socket: socket.socket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def environment(self) -> dict[str, str]:
        """Return the environment variables for the child."""
        raise NotImplementedError

    def started(self) -> None:
        """Close what only the child needs, once the child has started."""

    def was_unreachable(self) -> bool:
        """Return whether the child could not send notices; it can from now on."""
        return False

    async def receive_all(self, handle: Callable[[notify.Notice], None]) -> NoReturn:
        """Call a function with each notice until cancelled."""
        while True:
            handle(await self.receive())

    async def receive(self) -> notify.Notice:
        """Wait for the next notice. A checkpoint; a cancel loses no notice."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            if (notice := self.receive_nowait()) is not None:
                return notice

    def receive_nowait(self) -> notify.Notice | None:
        """Return the next queued notice, or None."""
        try:
            return notify.parse(self._socket.recv(notify.MAX_DATAGRAM))
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._socket.close()


class Channel(Receiver):
    """A socket pair that receives the notices of one of rt's own children.

    Raises:
        OSError: No file descriptor is available.
    """

    def __init__(self) -> None:
        self._socket, self._child = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # Both processes share this flag: the child does not block when the queue is full.
        self._child.setblocking(False)
        self.fds = (self._child.fileno(),)

    def environment(self) -> dict[str, str]:
        """Return the environment variables for the child."""
        fd = self._child.fileno()
        return {FD_VARIABLE: f"{fd}:{os.fstat(fd).st_ino}"}

    def started(self) -> None:
        """Close this process's copy of the child's end, once the child has started."""
        self._child.close()

    def close(self) -> None:
        """Close the sockets; idempotent."""
        self._child.close()
        super().close()


class Listener(Receiver):
    """A socket file that receives the notices of one child.

    The kernel queues some ten datagrams. When the queue is full, the child blocks or loses notices.

    Args:
        path: The path of the socket. A stale file is replaced, and a missing directory is created.

    Attributes:
        path: The path of the socket, which is unlinked at the end.

    Raises:
        OSError: The socket cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket, self._file = _bind(path)

    def environment(self) -> dict[str, str]:
        """Return the environment variables for the child."""
        return {VARIABLE: os.fspath(self.path)}

    def was_unreachable(self) -> bool:
        """Return whether the child could not send because the file is missing; create it again.

        A task that waits in `receive` gets `trio.ClosedResourceError` then.
        """
        with contextlib.suppress(OSError):
            if os.path.samestat(self.path.stat(), self._file):
                return False
        with contextlib.suppress(OSError):  # tried again at the next call
            new, self._file = _bind(self.path)
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._socket = new
        return True

    async def receive_all(self, handle: Callable[[notify.Notice], None]) -> NoReturn:
        """Call a function with each notice until cancelled; a removed file is created again."""
        while True:
            with trio.move_on_after(REBIND_INTERVAL) as scope:
                # Another task has called `was_unreachable`, which replaced the socket.
                with contextlib.suppress(trio.ClosedResourceError):
                    handle(await self.receive())
                    continue
                await trio.lowlevel.checkpoint()
            if scope.cancelled_caught:
                self.was_unreachable()

    def close(self) -> None:
        """Close the socket and remove its file; idempotent."""
        if self._socket.fileno() >= 0:
            super().close()
            with contextlib.suppress(OSError):
                self.path.unlink()


def _bind(path: Path) -> tuple[socket.socket, os.stat_result]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        sock.bind(os.fspath(path))
        return sock, path.stat()
    except BaseException:
        sock.close()
        raise


def send(
    *,
    ready: bool = False,
    stopping: bool = False,
    watchdog: bool = False,
    status: str | None = None,
    env: Mapping[str, str] | None = None,
) -> bool:
    """Send a notice to the parent: rt, systemd or any other program that set ``NOTIFY_SOCKET``.

    Never blocks and never raises.

    Args:
        ready: The process has started up.
        stopping: The process has begun to stop.
        watchdog: The process is alive.
        status: One line for the user.
        env: Contains the address; by default `os.environ`.

    Returns:
        Whether the notice was sent. False if the parent expects none or does not listen any more,
        or if the queue is full.
    """
    variables = os.environ if env is None else env
    data = notify.format(
        notify.Notice(ready=ready, stopping=stopping, watchdog=watchdog, status=status)
    )
    fd = _inherited(variables.get(FD_VARIABLE, ""))
    if fd is not None:
        try:
            os.write(fd, data)
        except OSError:
            return False
        return True
    address = variables.get(VARIABLE, "")
    if address.startswith("@"):
        address = "\0" + address[1:]
    elif not address.startswith("/"):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(data, address)
    except (OSError, ValueError):  # no free descriptor, or a null character in the address
        return False
    return True


def _inherited(value: str) -> int | None:
    """Return the descriptor that a value of `FD_VARIABLE` names, or None if it is another file."""
    fd, _, inode = value.partition(":")
    if not (fd.isascii() and fd.isdecimal()):
        return None
    try:
        same = str(os.fstat(int(fd)).st_ino) == inode
        if same:
            os.set_inheritable(int(fd), False)
    except (OSError, OverflowError):
        return None
    return int(fd) if same else None


def watchdog_period(env: Mapping[str, str] | None = None) -> float | None:
    """Return the period of watchdog notices that the parent expects (s).

    It is half of the parent's timeout, as sd_watchdog_enabled(3) recommends.

    Returns:
        The period, or None if the parent has no watchdog. ``WATCHDOG_PID`` is ignored, because it
        names the bootloader process of a one-file executable.
    """
    value = (os.environ if env is None else env).get("WATCHDOG_USEC", "")
    if not (value.isascii() and value.isdigit() and int(value)):
        return None
    return int(value) / 2e6
