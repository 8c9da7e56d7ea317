"""sd_notify as I/O: the socket on which a parent listens to one child, and the call by which a child speaks.

Each child has a socket of its own, so a datagram needs no proof of who sent it. rt's own children
inherit one end of a pair of sockets (`Channel`): no file that is removed, and no lack of
descriptors, silences them. Other programs find a socket file in the instance directory, which is
closed to other users (`Listener`). What the datagrams mean is in `rt.protocol.notify`.
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
"""``FD:INODE`` of the inherited end of a `Channel`; by the inode a process knows whether its descriptor of that number is that one."""

REBIND_INTERVAL = 0.5
"""Seconds of silence after which it is verified that the child can still reach us."""


class Channel:
    """Receives what one child of rt's own says. A context manager: leaving it closes the sockets.

    Attributes:
        fds: What the child is to inherit, until `started`.

    Raises:
        OSError: There is no descriptor left.
    """

    def __init__(self) -> None:
        self._socket, self._child = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._child.setblocking(
            False
        )  # of both processes: a child that says too much does not wait
        self.fds: tuple[int, ...] = (self._child.fileno(),)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def environment(self) -> dict[str, str]:
        """The variables by which the child finds its end."""
        fd = self._child.fileno()
        return {FD_VARIABLE: f"{fd}:{os.fstat(fd).st_ino}"}

    def started(self) -> None:
        """The child exists: its end is its own."""
        self._child.close()

    def was_unreachable(self) -> bool:
        """Whether the child could not reach us until now; it always can."""
        return False

    async def receive_all(self, heed: Callable[[notify.Notice], None]) -> NoReturn:
        """Give each datagram to a function until a cancel."""
        while True:
            heed(await self.receive())

    async def receive(self) -> notify.Notice:
        """Wait for the next datagram. A checkpoint; a cancel loses nothing."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            if (notice := self.receive_nowait()) is not None:
                return notice

    def receive_nowait(self) -> notify.Notice | None:
        """The next datagram that is already there, or None."""
        return _received(self._socket)

    def close(self) -> None:
        """Close the sockets; may be called twice."""
        self._child.close()
        self._socket.close()


class Listener:
    """Receives what one child says. A context manager: leaving it closes and unlinks the socket.

    Attributes:
        path: Where the socket is.
        fds: What the child is to inherit: nothing.

    Args:
        path: Where the socket is made; one that is left from before is replaced, a directory that
            was removed made again.

    Raises:
        OSError: The socket cannot be made there.
    """

    fds: tuple[int, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket, self._file = _bound(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def environment(self) -> dict[str, str]:
        """The variables by which the child finds the socket."""
        return {VARIABLE: os.fspath(self.path)}

    def started(self) -> None:
        """The child exists: nothing of it is held here."""

    def rebind(self) -> bool:
        """Make the socket anew if its file was removed, together with the directory; whether that was so.

        A wait in `receive` goes on with the new socket only when it is begun again.

        Raises:
            OSError: The socket cannot be made there.
        """
        try:
            if os.path.samestat(self.path.stat(), self._file):
                return False
        except OSError:
            pass
        new, self._file = _bound(self.path)
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._socket = new
        return True

    def was_unreachable(self) -> bool:
        """Whether the child could not reach us until now; mends that if it can be mended."""
        try:
            return self.rebind()
        except OSError:
            return True

    async def receive_all(self, heed: Callable[[notify.Notice], None]) -> NoReturn:
        """Give each datagram to a function until a cancel, whatever becomes of the socket's file meanwhile."""
        while True:
            with trio.move_on_after(REBIND_INTERVAL) as patience:
                # Closed: it was mended by another task, and the socket is another one.
                with contextlib.suppress(trio.ClosedResourceError):
                    heed(await self.receive())
                    continue
                await trio.lowlevel.checkpoint()
            if patience.cancelled_caught:
                self.was_unreachable()

    async def receive(self) -> notify.Notice:
        """Wait for the next datagram. A checkpoint; a cancel loses nothing.

        The queue is the kernel's (some ten datagrams); a child that says more than we hear waits,
        or loses what it says.
        """
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            if (notice := self.receive_nowait()) is not None:
                return notice

    def receive_nowait(self) -> notify.Notice | None:
        """The next datagram that is already there, or None."""
        return _received(self._socket)

    def close(self) -> None:
        """Close the socket and remove its file; may be called twice."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            with contextlib.suppress(OSError):
                self.path.unlink()


def _received(sock: socket.socket) -> notify.Notice | None:
    try:
        return notify.parse(sock.recv(notify.MAX_DATAGRAM))
    except BlockingIOError:
        return None


def _bound(path: Path) -> tuple[socket.socket, os.stat_result]:
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
    """Tell our parent (rt, systemd or anything else that set ``NOTIFY_SOCKET``) how we are. Never blocks and never raises.

    Args:
        ready: We have started up.
        stopping: We have begun to end.
        watchdog: We are alive.
        status: One line for a person.
        env: Where to look for the address instead of `os.environ`.

    Returns:
        Whether somebody took it: False when nobody asked for it, nobody listens any more, or the
        queue is full.
    """
    variables = os.environ if env is None else env
    data = notify.format(ready=ready, stopping=stopping, watchdog=watchdog, status=status)
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
    except (OSError, ValueError):  # no descriptor left, a null character in the address
        return False
    return True


def _inherited(value: str) -> int | None:
    """The descriptor that a value of `FD_VARIABLE` names, if this process has it."""
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
    """How often, in seconds, our parent wants to hear that we are alive: half of its patience, as sd_watchdog_enabled(3) says.

    Returns:
        The period, or None when nobody waits for it. ``WATCHDOG_PID`` is not looked at: of an
        executable that unpacks itself it names the outer process.
    """
    value = (os.environ if env is None else env).get("WATCHDOG_USEC", "")
    if not (value.isascii() and value.isdigit() and int(value)):
        return None
    return int(value) / 2e6
