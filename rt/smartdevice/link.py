"""Links: the line to one Smart Device, the same whether it is a serial port, a TCP connection or memory.

A link carries bytes and knows nothing of messages but this: after a write that did not finish there may be half a frame on the
line, so the next thing written is a delimiter. Whatever way a peer goes (end of file, EIO, hang-up, reset), the link says
`LinkGoneError` and nothing else.
"""

import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
from collections.abc import Callable
from typing import Final, Protocol, Self

import trio
from trio.abc import Stream
from trio_serial.linux import LinuxSerialStream

from rt.errors import DeviceError
from rt.protocol.frames import DELIMITER

DEFAULT_BAUD_RATE: Final = 115200
RECEIVE_SIZE: Final = 4096
PIECE_SIZE: Final = 1024
"""The most bytes that `Link.receive_nowait` gives at once: about 1 ms of work, so that one line does not keep the others waiting."""
_EMPTY_READ_PAUSE: Final = 0.01
_CLOSE_LOOKS: Final = 10
_CLOSE_PAUSE: Final = 0.005


class LinkGoneError(DeviceError):
    """The other end of a link is gone; the link is of no further use."""


class Link(Protocol):
    """The line to one Smart Device.

    One task may receive while another sends. Both raise `LinkGoneError` when the peer is gone and `trio.ClosedResourceError`
    when the link was closed on this side, also if that happens while they wait.

    A link that has a file descriptor may be watched from outside: when it is readable, `receive_nowait` has something to say. Who
    watches it sets ``on_closing``, and does not receive in any other way meanwhile.

    Attributes:
        on_closing: Called once when the link is closed on this side, before its descriptor is; None for nobody.
    """

    on_closing: Callable[[], None] | None

    @property
    def name(self) -> str:
        """What a person calls this link: the path of the port, or the peer's address."""

    async def receive(self) -> bytes:
        """Return what has arrived, at least one byte. A checkpoint; a cancel loses nothing."""

    def fileno(self) -> int | None:
        """The descriptor that becomes readable when something arrives or the peer goes; None without one, or when closed."""

    def receive_nowait(self) -> bytes | None:
        """Return what has arrived, 1 to 1024 bytes, or None if nothing has.

        Raises like `receive`. After None, look at the descriptor again only after a pause: it may be readable for ever.
        """

    async def send(self, data: bytes, /) -> None:
        """Send whole frames. A checkpoint; after a cancel or an error the next send starts with a delimiter."""

    def send_nowait(self, data: bytes, /) -> bool:
        """Send whole frames if the line takes them at this moment; False if it does not, and `send` has to send them.

        Not while another task sends.
        """

    async def aclose(self) -> None:
        """Close the link; harmless if it is closed."""


class StreamLink:
    """A link over a trio stream: TCP, or a pair in memory.

    Args:
        stream: The stream, owned by the link from here on.
        name: What a person calls it.
    """

    def __init__(self, stream: Stream, name: str) -> None:
        self.name = name
        self.on_closing: Callable[[], None] | None = None
        self._stream = stream
        self._cut = False

    async def receive(self) -> bytes:
        """See `Link.receive`."""
        try:
            data = await self._receive_some()
        except trio.BrokenResourceError as error:
            raise _gone(self.name, error) from error
        if not data:
            raise _gone(self.name, None)
        return data

    def fileno(self) -> int | None:
        """See `Link.fileno`; a stream in memory has none."""
        return None

    def receive_nowait(self) -> bytes | None:
        """See `Link.receive_nowait`; a stream in memory never has anything."""
        return None

    async def send(self, data: bytes, /) -> None:
        """See `Link.send`."""
        if self._cut:
            data = DELIMITER + data
        cut = True
        try:
            await self._send_all(data)
            cut = False
        except trio.BusyResourceError:
            cut = self._cut  # nothing of ours went out
            raise
        except trio.BrokenResourceError as error:
            raise _gone(self.name, error) from error
        finally:
            self._cut = cut

    def send_nowait(self, data: bytes, /) -> bool:
        """See `Link.send_nowait`; a stream in memory never does."""
        del data
        return False

    async def aclose(self) -> None:
        """See `Link.aclose`."""
        self._announce_closing()
        await trio.aclose_forcefully(self._stream)

    def _announce_closing(self) -> None:
        if self.on_closing is not None:
            self.on_closing()
            self.on_closing = None

    async def _receive_some(self) -> bytes:
        return bytes(await self._stream.receive_some(RECEIVE_SIZE))

    async def _send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)


class SocketLink(StreamLink):
    """A link over TCP that reads and writes the socket itself.

    A line is silent most of the time, and then each layer that a message passes, cold in the processor's caches, costs more
    than the message: this halves the time from a frame's arrival to its value.
    """

    _stream: trio.SocketStream

    def __init__(self, stream: trio.SocketStream, name: str) -> None:
        super().__init__(stream, name)
        self._fd = stream.socket.fileno()

    def fileno(self) -> int | None:
        """See `Link.fileno`."""
        return self._fd if self._fd >= 0 else None

    async def aclose(self) -> None:
        """See `Link.aclose`."""
        self._announce_closing()
        self._fd = -1
        await super().aclose()

    def receive_nowait(self) -> bytes | None:
        """See `Link.receive_nowait`."""
        try:
            data = os.read(self._fd, PIECE_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            self._fileno()  # a closed link is no peer that is gone
            raise _gone(self.name, error) from error
        if not data:
            raise _gone(self.name, None)
        return data

    def send_nowait(self, data: bytes, /) -> bool:
        """See `Link.send_nowait`."""
        self._cut = self._cut or _cuts(self._fd, data)
        return not self._cut

    async def _receive_some(self) -> bytes:
        while True:
            fd = self._fileno()
            await trio.lowlevel.wait_readable(fd)
            try:
                return os.read(fd, RECEIVE_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def _send_all(self, data: bytes) -> None:
        try:
            sent = os.write(self._fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError from error
        if sent < len(data):
            await self._stream.send_all(data[sent:])
        else:
            await trio.lowlevel.checkpoint()

    def _fileno(self) -> int:
        if self._fd < 0:
            raise trio.ClosedResourceError
        return self._fd


class SerialLink(StreamLink):
    """A link over a serial port, raw, 8N1, held exclusively and without a say in DTR when it is closed.

    Make one with `open`.
    """

    _stream: LinuxSerialStream

    @classmethod
    async def open(cls, port: str, *, baud_rate: int = DEFAULT_BAUD_RATE) -> Self:
        """Open a port. Boards reset when that happens and need up to 2 s before they answer.

        Raises:
            OSError: It cannot be opened: ENOENT (vanished), EACCES (permission), EBUSY (another program holds it), or
                another error number of the system.
        """
        stream = LinuxSerialStream(port, exclusive=True, baudrate=baud_rate)
        # A board takes a falling DTR as a reset, so the port must not hang up when we close it.
        await stream.set_hangup(value=False)
        try:
            await stream.aopen()
        except termios.error as error:
            raise OSError(error.args[0], f"not a serial port: {error.args[1]}", port) from error
        except OSError as error:
            cause = error.__cause__
            if error.errno is None and isinstance(cause, OSError):  # flock's error, wrapped
                raise OSError(errno.EBUSY, "another program holds it", port) from error
            raise
        return cls(stream, port)

    async def receive(self) -> bytes:
        """See `Link.receive`."""
        while True:
            try:
                data = await self._receive_some()
            except OSError as error:
                raise _gone(self.name, error) from error
            if data:
                return data
            # A tty reads empty both when woken for nothing and after a hang-up, for ever: never spin on it.
            if _hung_up(self._stream.fd):
                raise _gone(self.name, None)
            await trio.sleep(_EMPTY_READ_PAUSE)

    def fileno(self) -> int | None:
        """See `Link.fileno`."""
        try:
            return self._stream.fd
        except trio.ClosedResourceError:
            return None

    def receive_nowait(self) -> bytes | None:
        """See `Link.receive_nowait`."""
        fd = self._stream.fd
        try:
            data = os.read(fd, PIECE_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _gone(self.name, error) from error
        if not data and _hung_up(fd):
            raise _gone(self.name, None)
        return data or None

    async def send(self, data: bytes, /) -> None:
        """See `Link.send`."""
        try:
            await super().send(data)
        except OSError as error:
            raise _gone(self.name, error) from error

    def send_nowait(self, data: bytes, /) -> bool:
        """See `Link.send_nowait`."""
        try:
            fd = self._stream.fd
        except trio.ClosedResourceError:
            return False
        self._cut = self._cut or _cuts(fd, data)
        return not self._cut

    async def aclose(self) -> None:
        """See `Link.aclose`. Waits at most 50 ms for bytes that the driver still holds, then drops them.

        Closing a tty whose device takes no more bytes would otherwise block the whole process for up to 30 s.
        """
        self._announce_closing()
        with contextlib.suppress(OSError, termios.error, trio.ClosedResourceError):
            fd = self._stream.fd
            for _ in range(_CLOSE_LOOKS):
                if not _unsent(fd):
                    break
                with trio.CancelScope(shield=True):
                    await trio.sleep(_CLOSE_PAUSE)
            else:
                termios.tcflush(fd, termios.TCOFLUSH)
        await self._stream.aclose()


def _gone(name: str, cause: BaseException | None) -> LinkGoneError:
    detail = cause.__cause__ or cause if cause is not None else None
    reason = f": {detail}" if detail is not None and str(detail) else ""
    return LinkGoneError(f"{name} is gone{reason}", port=name)


def _cuts(fd: int, data: bytes) -> bool:
    """Write without waiting; True if not all of it was taken: then the line wants a delimiter, and the frame again."""
    try:
        return os.write(fd, data) < len(data)
    except OSError:
        return True


def _hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


def _unsent(fd: int) -> int:
    """Bytes that the driver has taken and not yet sent."""
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(count)
