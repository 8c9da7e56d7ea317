"""Links: the line to one Smart Device, whether a serial port, a TCP connection or memory.

A link carries bytes and knows one thing of messages: after a write that did not finish there may be
half a frame on the line, so it writes a delimiter first the next time.

Invariant: however a peer goes away (end of file, EIO, hang-up, reset), the link raises
    `LinkGoneError`.
"""

import os
from collections.abc import Callable
from typing import Final, Protocol

import trio
from trio.abc import Stream

from rt.brake import output_queue
from rt.errors import DeviceError
from rt.protocol.frames import DELIMITER

RECEIVE_SIZE: Final = 4096
CHUNK_SIZE: Final = 1024
"""The most bytes that `Link.receive_nowait` returns: about 1 ms of work, so that one line does not
delay the others.
"""
EMPTY_READ_PAUSE: Final = 0.01
"""How long a line that was reported readable but was empty is ignored, in s: nothing ever spins on
it.
"""
DRAIN_PAUSE: Final = 0.005
"""Time between two checks whether the kernel has sent everything, in s."""


class LinkGoneError(DeviceError):
    """The other end of a link is gone; the link cannot be used any more."""


class LinkEnd(Protocol):
    """One end of the line between a robot and a Smart Device."""

    @property
    def name(self) -> str:
        """The name of the link for people: the path of the port, or the peer's address."""

    async def receive(self) -> bytes:
        """Return what has arrived, at least one byte.

        A checkpoint; a cancellation loses no data.
        """

    async def send(self, data: bytes, /) -> None:
        """Send whole frames. A checkpoint.

        After a cancellation or an error the next send starts with a delimiter.
        """

    def send_nowait(self, data: bytes, /) -> bool:
        """Send whole frames if the line takes them at once; if not, return False.

        After False the frames have to be sent with `send`. Not for use while another task sends.
        """

    async def aclose(self) -> None:
        """Close the link; idempotent."""


class Link(LinkEnd, Protocol):
    """The line to one Smart Device.

    One task may receive while another sends. Both raise `LinkGoneError` when the peer is gone and
    `trio.ClosedResourceError` when the link is closed on this side, also while they wait.

    A link with a file descriptor may be watched from outside: when the descriptor is readable,
    `receive_nowait` has data or an error. The watching task sets ``on_closing`` and does not
    receive in any other way meanwhile.

    Attributes:
        on_closing: Called once when the link is closed on this side, before its descriptor is
            closed; or None.
    """

    on_closing: Callable[[], None] | None

    def fileno(self) -> int | None:
        """Return the descriptor that becomes readable when data arrives or the peer goes away.

        None if there is no descriptor or the link is closed.
        """

    def receive_nowait(self) -> bytes | None:
        """Return what has arrived, 1 to 1024 bytes, or None if nothing has.

        Raises like `receive`. After None, check the descriptor again only after a pause: it may
        stay readable.
        """

    async def send_last(self, data: bytes, /) -> bool:
        """Send a frame before the link is closed, and make sure that closing does not drop it.

        Returns:
            False if the line has not taken it within `rt.brake.output_queue.TIME_LIMIT`.

        Raises:
            LinkGoneError: The peer is gone.
        """


class StreamLink:
    """A link over a trio stream: TCP, or a pair in memory.

    Args:
        stream: The stream; the link closes it.
        name: The name of the link for people.
    """

    def __init__(self, stream: Stream, name: str) -> None:
        self.name = name
        self.on_closing: Callable[[], None] | None = None
        self._stream = stream
        self._truncated = False

    async def receive(self) -> bytes:
        """See `Link.receive`."""
        try:
            data = await self._receive_some()
        except trio.BrokenResourceError as error:
            raise link_gone(self.name, error) from error
        if not data:
            raise link_gone(self.name, None)
        return data

    def fileno(self) -> int | None:
        """See `Link.fileno`; a stream in memory has none."""
        return None

    def receive_nowait(self) -> bytes | None:
        """See `Link.receive_nowait`; always None for a stream in memory."""
        return None

    async def send(self, data: bytes, /) -> None:
        """See `Link.send`."""
        if self._truncated:
            data = DELIMITER + data
        truncated = True
        try:
            await self._send_all(data)
            truncated = False
        except trio.BusyResourceError:
            truncated = self._truncated  # nothing was written
            raise
        except (trio.BrokenResourceError, OSError) as error:
            raise link_gone(self.name, error) from error
        finally:
            self._truncated = truncated

    def send_nowait(self, data: bytes, /) -> bool:
        """See `Link.send_nowait`; always False for a stream in memory."""
        fd = self.fileno()
        if fd is None:
            return False
        self._truncated = self._truncated or short_write(fd, data)
        return not self._truncated

    async def send_last(self, data: bytes, /) -> bool:
        """See `Link.send_last`."""
        with trio.move_on_after(output_queue.TIME_LIMIT):
            await self.send(data)
            if (fd := self.fileno()) is not None:
                await drain(fd)
            return True
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


def link_gone(name: str, cause: BaseException | None) -> LinkGoneError:
    """Return the error for a link whose peer is gone, with the system's reason."""
    detail = cause.__cause__ or cause if cause is not None else None
    reason = f": {detail}" if detail is not None and str(detail) else ""
    return LinkGoneError(f"{name} disconnected{reason}", port=name)


async def drain(fd: int) -> None:
    """Wait until the kernel has sent everything that was written.

    Raises:
        OSError: The peer is gone.
    """
    while output_queue.unsent(fd):  # noqa: ASYNC110 - the kernel has no event for this
        await trio.sleep(DRAIN_PAUSE)


def short_write(fd: int, data: bytes) -> bool:
    """Write without waiting, and return whether some of the data was not taken.

    Then a delimiter and the frame have to be sent again.
    """
    try:
        return os.write(fd, data) < len(data)
    except OSError:
        return True
