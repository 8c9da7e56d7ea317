"""Receives from all links in one task, with interrupt coalescing.

A task for each line that waits until it is readable costs a system call and two task switches a
message. Here one task waits for all lines that have a file descriptor, in an epoll of its own, and
receives from all readable ones. While much data arrives it pauses for 5 ms after each round, as
network drivers do: one round then serves several lines, and a flood cannot starve the event loop.
On a quiet line it reacts at once.

Invariant: nothing is read that cannot be consumed. A line whose consumer is blocked is not watched,
    and what arrives meanwhile waits in the kernel.
"""

import contextlib
import select
from collections.abc import Callable
from typing import Final

import trio

from rt.link.link import EMPTY_READ_PAUSE, Link

COALESCE_TIME: Final = 0.005
"""Pause after a round while much arrives, in s: an eighth of the shortest report interval."""

BUSY_RATE: Final = 1500
"""Chunks of data a second from which on the lines count as busy."""

CHUNK: Final = 128
"""Bytes that count as one more chunk, so that a flood on one line counts as busy too."""

_WINDOW: Final = 0.03
_MAX_LINKS: Final = 64

Consumer = Callable[[bytes], bool]
"""Consumes bytes and returns whether it can take more."""


class Coalescing:
    """Decides how long to pause after a round: not at all, or briefly while much arrives."""

    def __init__(self) -> None:
        self._since = 0.0
        self._chunks = 0
        self._busy = False

    def after(self, chunks: int, now: float) -> float:
        """Return the pause after a round, in s.

        Args:
            chunks: How many chunks of data it received.
            now: The time in s.
        """
        self._chunks += chunks
        seconds = now - self._since
        if seconds >= _WINDOW:
            self._busy = self._chunks >= BUSY_RATE * seconds
            self._since = now
            self._chunks = 0
        return COALESCE_TIME if self._busy else 0.0


class Receiver:
    """Receives from many links in one task.

    The calling task receives from a link without a file descriptor itself.
    """

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watches: dict[int, _Watch] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve all links until cancelled; then their own tasks receive from them."""
        coalescing = Coalescing()
        with select.epoll() as epoll:
            self._epoll = epoll
            task_status.started()
            try:
                while True:
                    await trio.lowlevel.wait_readable(epoll.fileno())
                    while True:
                        chunks = self._receive_ready(epoll)
                        pause = coalescing.after(chunks, trio.current_time())
                        if not pause:
                            break
                        await trio.sleep(pause)
            finally:
                self._epoll = None
                for watch in list(self._watches.values()):
                    watch.end(None)

    async def receive(self, link: Link, consume: Consumer) -> None:
        """Pass what arrives on a link to ``consume`` until that returns False.

        Call it again when the consumer can take more. A cancellation loses no data.

        Args:
            link: The link; no other task may receive from it at the same time.
            consume: Called in the event loop, also from another task; must return at once.

        Raises:
            LinkGoneError: The peer is gone.
            trio.ClosedResourceError: The link was closed on this side.
            Exception: What ``consume`` raised.
        """
        blocked = False
        while not blocked:
            epoll, fd = self._epoll, link.fileno()
            if epoll is None or fd is None:
                blocked = not consume(await link.receive())
                continue
            watch = _Watch(self, link, consume, fd)
            epoll.register(fd, select.EPOLLIN)
            self._watches[fd] = watch
            link.on_closing = watch.close
            try:
                await watch.ended.wait()
            finally:
                watch.end(None)
            if watch.error is not None:
                raise watch.error
            blocked = watch.blocked
            if watch.spurious:
                await trio.sleep(EMPTY_READ_PAUSE)

    def _receive_ready(self, epoll: select.epoll) -> int:
        """Receive a bounded amount from each readable link; return the number of chunks."""
        chunks = 0
        for fd, _ in epoll.poll(0, _MAX_LINKS):
            watch = self._watches.get(fd)
            if watch is not None:  # one line's data may have ended another
                chunks += watch.serve()
        return chunks

    def unwatch(self, fd: int) -> None:
        """Stop watching a descriptor."""
        del self._watches[fd]
        if self._epoll is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)


class _Watch:
    """A watched link, and how the watch ended."""

    __slots__ = ("_consume", "_fd", "_link", "_receiver", "blocked", "ended", "error", "spurious")

    def __init__(self, receiver: Receiver, link: Link, consume: Consumer, fd: int) -> None:
        self._receiver = receiver
        self._link = link
        self._consume = consume
        self._fd = fd
        self.ended = trio.Event()
        self.error: Exception | None = None
        self.blocked = False
        self.spurious = False

    def serve(self) -> int:
        """Receive what the link has; return the number of chunks."""
        try:
            data = self._link.receive_nowait()
            if data is None:
                self.spurious = True
                self.end(None)
                return 1
            if not self._consume(data):
                self.blocked = True
                self.end(None)
        except Exception as error:  # noqa: BLE001 - raised in the task that waits
            self.end(error)
            return 1
        return 1 + len(data) // CHUNK

    def close(self) -> None:
        """Handle that the link is about to be closed on this side."""
        self.end(trio.ClosedResourceError())

    def end(self, error: Exception | None) -> None:
        """Stop watching and wake the waiting task; only the first call counts."""
        if not self.ended.is_set():
            self.ended.set()
            self.error = error
            self._link.on_closing = None
            self._receiver.unwatch(self._fd)
