"""Links over serial ports: the adapter around trio-serial, with what boards and ttys need."""

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

from rt.brake import output_queue
from rt.link.link import CHUNK_SIZE, DRAIN_PAUSE, EMPTY_READ_PAUSE, StreamLink, drain, link_gone
from rt.protocol.frames import DELIMITER

DEFAULT_BAUD_RATE: Final = 115200
DRAIN_TIMEOUT: Final = 0.1
"""How long unsent data may delay the last frame before it is dropped, in s."""
_CLOSE_CHECKS: Final = 10


class SerialLink(StreamLink):
    """A link over a serial port: raw, 8N1, held exclusively, and without hang-up when it is closed.

    Create one with `open`.
    """

    _stream: LinuxSerialStream

    @classmethod
    async def open(cls, port: str, *, baud_rate: int = DEFAULT_BAUD_RATE) -> Self:
        """Open a port. This resets most boards, which then need up to 2 s before they answer.

        Raises:
            OSError: It cannot be opened: ENOENT (vanished), EACCES (permission), EBUSY (held by
                another program), or another error number of the system.
        """
        stream = LinuxSerialStream(port, exclusive=True, baudrate=baud_rate)
        # A board takes a falling DTR as a reset, so closing the port must not hang up.
        await stream.set_hangup(value=False)
        try:
            await _open_in_thread(stream)
        except termios.error as error:
            raise OSError(error.args[0], f"not a serial port: {error.args[1]}", port) from error
        except OSError as error:
            cause = error.__cause__
            if error.errno is None and isinstance(cause, OSError):  # flock's error, wrapped
                raise OSError(errno.EBUSY, "held by another program", port) from error
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
            # A tty reads empty when woken for nothing, and forever after a hang-up.
            if _hung_up(self._stream.fd):
                raise link_gone(self.name, None)
            await trio.sleep(EMPTY_READ_PAUSE)

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

    async def send_last(self, data: bytes, /) -> bool:
        """See `Link.send_last`.

        Returns when the driver has sent all bytes, or has dropped them after the time limit.
        """
        try:
            with trio.move_on_after(output_queue.TIME_LIMIT):
                with trio.move_on_after(DRAIN_TIMEOUT):
                    await self.send(data)
                    await drain(self._stream.fd)
                    return True
                while not self._replace_output(DELIMITER + data):  # noqa: ASYNC110 - polled
                    await trio.sleep(DRAIN_PAUSE)
                await drain(self._stream.fd)
                return True
            output_queue.drop(self._stream.fd)
        except (OSError, termios.error) as error:
            raise link_gone(self.name, error) from error
        return False

    def _replace_output(self, data: bytes) -> bool:
        """Drop what the driver has not sent, and write ``data`` instead.

        Returns:
            False if the driver does not take all of it now.
        """
        fd = self._stream.fd
        output_queue.drop(fd)
        try:
            return os.write(fd, data) == len(data)
        except BlockingIOError:
            return False

    async def aclose(self) -> None:
        """See `Link.aclose`.

        Waits at most 50 ms for bytes that the driver still holds, then drops them.

        Closing a tty whose device accepts no data would otherwise block the whole process for up to
        30 s. `send_last` waits longer.
        """
        self._announce_closing()
        with contextlib.suppress(OSError, termios.error, trio.ClosedResourceError):
            fd = self._stream.fd
            for _ in range(_CLOSE_CHECKS):
                if not output_queue.unsent(fd):
                    break
                with trio.CancelScope(shield=True):
                    await trio.sleep(DRAIN_PAUSE)
            else:
                output_queue.drop(fd)
            # Otherwise the brake's duplicate would hold the lock until it is closed too.
            fcntl.flock(fd, fcntl.LOCK_UN)
        await self._stream.aclose()


async def _open_in_thread(stream: LinuxSerialStream) -> None:
    """Open a port and set its speed in a worker thread.

    The kernel contacts a USB board when its port is opened and again when its speed is set, and
    blocks for seconds each time if the board hangs. The event loop, which disables devices, must
    not wait for that. After a cancellation the thread closes the port once it is open.

    Raises:
        OSError, termios.error: It cannot be opened.
    """
    lock = threading.Lock()
    opened = cancelled = False

    def open_port() -> None:
        nonlocal opened
        trio.run(stream.aopen)  # only the kernel can block here
        with lock:
            opened = True
            if cancelled:
                trio.run(stream.aclose)

    try:
        await trio.to_thread.run_sync(open_port, abandon_on_cancel=True)
    except trio.Cancelled:
        with lock:
            cancelled = True
            if opened:  # otherwise the thread closes it
                await stream.aclose()
        raise


def _hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(
        events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0)
    )
