"""Receives from all links at once.

A task for each line that waits until it is readable costs a call of the kernel and two switches of
tasks a message. Here one task waits for all lines that have a file descriptor, in an epoll of their
own, and takes in what all of them have in one sweep. While much arrives it leaves the lines alone
for 5 ms after each sweep, as drivers of networks do: a sweep then serves several lines, and no
flood takes the event loop from the others. On a quiet line it answers at once.

The rule of this module: nothing is read that nobody can take. A line whose taker is stuck is not
watched until it can take more, and what comes meanwhile waits in the kernel.
"""

import contextlib
import select
from collections.abc import Callable
from typing import Final

import trio

from rt.link.link import Link

EMPTY_READ_PAUSE: Final = 0.01
"""How long a line that was said to be readable and was not is left alone, in s: nothing ever spins on it."""

COALESCE_TIME: Final = 0.005
"""How long all lines are left alone after a sweep while much arrives, in s: an eighth of the shortest period of reports."""

BUSY_RATE: Final = 1500
"""How much is much: pieces of data a second."""

CHUNK: Final = 128
"""How many bytes count as one more piece of data: a flood on one line is much too."""

_WINDOW: Final = 0.03
_MAX_LINKS: Final = 64

Consumer = Callable[[bytes], bool]
"""Takes in bytes and says whether it can take more."""


class Coalescing:
    """Says how long to leave the lines alone: not at all, or a little while much arrives."""

    def __init__(self) -> None:
        self._since = 0.0
        self._pieces = 0
        self._busy = False

    def after(self, chunks: int, now: float) -> float:
        """The pause after a sweep.

        Args:
            chunks: How many pieces of data it took in.
            now: The time in s.
        """
        self._pieces += chunks
        seconds = now - self._since
        if seconds >= _WINDOW:
            self._busy = self._pieces >= BUSY_RATE * seconds
            self._since = now
            self._pieces = 0
        return COALESCE_TIME if self._busy else 0.0


class Receiver:
    """Receives from many links in one task. Links without a file descriptor are received from in the task that asks."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watches: dict[int, _Watch] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve all links until cancelled; those that are still watched then are received from by their own tasks."""
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
        """Give what arrives on a link to ``consume`` until that says that it cannot take more; call again when it can.

        A cancel loses nothing.

        Args:
            link: Not received from by any other task at the same time.
            consume: Called in the event loop, also from another task; returns at once.

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
        """Take in a bounded piece of what each readable link has; how many pieces of data that was."""
        chunks = 0
        for fd, _ in epoll.poll(0, _MAX_LINKS):
            watch = self._watches.get(fd)
            if watch is not None:  # what one line says may end another
                chunks += watch.serve()
        return chunks

    def unwatch(self, fd: int) -> None:
        """Watch a descriptor no more."""
        del self._watches[fd]
        if self._epoll is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)


class _Watch:
    """A link that is watched, and how that ended."""

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
        """Take in what the link has; how many pieces of data that was."""
        try:
            data = self._link.receive_nowait()
            if data is None:
                self.spurious = True
                self.end(None)
                return 1
            if not self._consume(data):
                self.blocked = True
                self.end(None)
        except Exception as error:  # noqa: BLE001 - it is the error of the task that asked, and raised there
            self.end(error)
            return 1
        return 1 + len(data) // CHUNK

    def close(self) -> None:
        """The link is about to be closed on this side."""
        self.end(trio.ClosedResourceError())

    def end(self, error: Exception | None) -> None:
        """Watch no more, and let the task that asked go on; only the first end counts."""
        if not self.ended.is_set():
            self.ended.set()
            self.error = error
            self._link.on_closing = None
            self._receiver.unwatch(self._fd)
