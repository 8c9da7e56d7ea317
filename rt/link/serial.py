"""Links over serial ports: the one adapter around trio-serial, with what a board and a tty need beyond it."""

import contextlib
import errno
import fcntl
import os
import select
import termios
import threading
from typing import Final, Self

import trio
from trio_serial.linux import LinuxSerialStream

from rt.brake import output
from rt.link.link import CHUNK_SIZE, DRAIN_PAUSE, StreamLink, drain, link_gone, short_write
from rt.protocol.frames import DELIMITER

DEFAULT_BAUD_RATE: Final = 115200
_EMPTY_READ_PAUSE: Final = 0.01
DRAIN_TIMEOUT: Final = 0.1
"""How long what was sent before the last frame may keep that waiting until it is dropped, in s."""
_CLOSE_CHECKS: Final = 10


class SerialLink(StreamLink):
    """A link over a serial port, raw, 8N1, held exclusively and without a say in DTR when it is closed.

    Make one with `open`.
    """

    _stream: LinuxSerialStream

    @classmethod
    async def open(cls, port: str, *, baud_rate: int = DEFAULT_BAUD_RATE) -> Self:
        """Open a port. Boards reset when that happens and need up to 2 s before they answer.

        Raises:
            OSError: It cannot be opened: ENOENT (vanished), EACCES (permission), EBUSY (another
                program holds it), or another error number of the system.
        """
        stream = LinuxSerialStream(port, exclusive=True, baudrate=baud_rate)
        # A board takes a falling DTR as a reset, so the port must not hang up when we close it.
        await stream.set_hangup(value=False)
        try:
            await _open_in_thread(stream)
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
                raise link_gone(self.name, error) from error
            if data:
                return data
            # A tty reads empty both when woken for nothing and after a hang-up, for ever: never
            # spin on it.
            if _hung_up(self._stream.fd):
                raise link_gone(self.name, None)
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
            data = os.read(fd, CHUNK_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise link_gone(self.name, error) from error
        if not data and _hung_up(fd):
            raise link_gone(self.name, None)
        return data or None

    async def send(self, data: bytes, /) -> None:
        """See `Link.send`."""
        try:
            await super().send(data)
        except OSError as error:
            raise link_gone(self.name, error) from error

    def send_nowait(self, data: bytes, /) -> bool:
        """See `Link.send_nowait`."""
        try:
            fd = self._stream.fd
        except trio.ClosedResourceError:
            return False
        self._truncated = self._truncated or short_write(fd, data)
        return not self._truncated

    async def send_last(self, data: bytes, /) -> bool:
        """See `Link.send_last`. Returns when the driver has sent all bytes, or has dropped them after the time limit."""
        try:
            with trio.move_on_after(output.TIME_LIMIT):
                with trio.move_on_after(DRAIN_TIMEOUT):
                    await self.send(data)
                    await drain(self._stream.fd)
                    return True
                while not self._replace_output(DELIMITER + data):  # noqa: ASYNC110 - no event says so
                    await trio.sleep(DRAIN_PAUSE)
                await drain(self._stream.fd)
                return True
            output.drop(self._stream.fd)
        except (OSError, termios.error) as error:
            raise link_gone(self.name, error) from error
        return False

    def _replace_output(self, data: bytes) -> bool:
        """Drop what the driver has not sent, and write something else; False if the driver does not take all of it now."""
        fd = self._stream.fd
        output.drop(fd)
        try:
            return os.write(fd, data) == len(data)
        except BlockingIOError:
            return False

    async def aclose(self) -> None:
        """See `Link.aclose`. Waits at most 50 ms for bytes that the driver still holds, then drops them; `send_last` waits longer.

        Closing a tty whose device takes no more bytes would otherwise block the whole process for
        up to 30 s.
        """
        self._announce_closing()
        with contextlib.suppress(OSError, termios.error, trio.ClosedResourceError):
            fd = self._stream.fd
            for _ in range(_CLOSE_CHECKS):
                if not output.unsent(fd):
                    break
                with trio.CancelScope(shield=True):
                    await trio.sleep(DRAIN_PAUSE)
            else:
                output.drop(fd)
            # The brake's duplicate would keep the lock until it is closed too.
            fcntl.flock(fd, fcntl.LOCK_UN)
        await self._stream.aclose()


async def _open_in_thread(stream: LinuxSerialStream) -> None:
    """Open a port and set its speed without keeping the event loop waiting, which is the one that disables the devices.

    The kernel asks a USB board to get ready when its port is opened, and again when its speed is
    set, and waits for seconds each time for one that hangs. A cancel leaves the thread alone, which
    closes the port when it has got it.

    Raises:
        OSError, termios.error: It cannot be opened.
    """
    lock = threading.Lock()
    opened = abandoned = False

    def open_port() -> None:
        nonlocal opened
        trio.run(stream.aopen)  # which waits for nothing but the kernel
        with lock:
            opened = True
            if abandoned:
                trio.run(stream.aclose)

    try:
        await trio.to_thread.run_sync(open_port, abandon_on_cancel=True)
    except trio.Cancelled:
        with lock:
            abandoned = True
            if opened:  # else the thread is at work on it
                await stream.aclose()
        raise


def _hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(
        events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0)
    )
