"""Emulated devices on lines: on any link, over TCP, or on a pseudo-terminal.

Invariant: each device has its own backlog for what its full line does not take, and delays no other
    device.
"""

import contextlib
import os
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import trio

from rt.emulator.faults import Faults
from rt.emulator.faulty_link import FaultyLink
from rt.emulator.firmware import EmulatedDevice
from rt.emulator.scheduler import Entry, Scheduler
from rt.link.link import LinkEnd, LinkGoneError, StreamLink
from rt.link.tcp import SocketLink
from rt.protocol import frames
from rt.protocol.message import Message

__all__ = ["EmulatedDevice", "connect_emulated", "run_emulated", "serve_pty"]

_BACKLOG: Final = 64
_MIN_RETRY: Final = 0.05
_MAX_RETRY: Final = 0.25
_SETTLED: Final = 5.0


async def run_emulated(
    device: EmulatedDevice, link: LinkEnd, *, scheduler: Scheduler | None = None
) -> None:
    """Run a device on a link until the peer is gone or the link is closed.

    Args:
        device: The device.
        link: The line to the robot, a `Link` or a part of one; the caller closes it.
        scheduler: Wakes the device when it is due; a new one if None.
    """
    try:
        async with trio.open_nursery() as nursery:
            if scheduler is None:
                scheduler = Scheduler()
                nursery.start_soon(scheduler.run)
            runner = _DeviceRunner(device, link, scheduler)
            try:
                nursery.start_soon(runner.drain)
                await runner.receive()
            finally:
                runner.close()
    except* (LinkGoneError, trio.ClosedResourceError):
        pass


class _DeviceRunner:
    """Runs one device on one link.

    One task receives, and one sends what the line did not take at once.
    """

    def __init__(self, device: EmulatedDevice, link: LinkEnd, scheduler: Scheduler) -> None:
        self._device = device
        self._link = link
        self._scheduler = scheduler
        self._entry = Entry(self._act)
        self._backlog: list[bytes] = []
        self._draining = False
        self._changed = trio.lowlevel.ParkingLot()
        self._space = trio.lowlevel.ParkingLot()

    async def receive(self) -> None:
        """Handle what the robot sends, and answer.

        While the backlog is full it does not read, so the robot has to wait and nothing is lost.
        """
        reader = frames.FrameReader()
        self._schedule()
        while True:
            items = reader.feed(await self._link.receive())
            now = trio.current_time()
            for item in items:
                self._send(self._device.handle(item, now))
                while len(self._backlog) >= _BACKLOG:
                    await self._space.park()
            self._schedule()

    async def drain(self) -> None:
        """Send what the line did not take at once."""
        while True:
            if not self._backlog:
                await self._changed.park()
            self._draining = True
            data = b"".join(self._backlog)
            self._backlog.clear()
            self._space.unpark_all()
            await self._link.send(data)
            self._draining = False
            self._schedule()

    def close(self) -> None:
        """Remove the device from the scheduler."""
        self._scheduler.schedule(self._entry, float("inf"))

    def _act(self, now: float) -> None:
        self._send(self._device.due(now))
        self._schedule()

    def _schedule(self) -> None:
        # While the line is full nothing more is sent; the periods that pass are skipped.
        if not self._draining and not self._backlog:
            self._scheduler.schedule(self._entry, self._device.next_due)

    def _send(self, messages: list[Message]) -> None:
        if not messages:
            return
        data = b"".join(map(frames.encode, messages))
        if self._draining or self._backlog or not self._link.send_nowait(data):
            self._backlog.append(data)
            self._changed.unpark_all()


async def connect_emulated(
    device: EmulatedDevice,
    host: str,
    port: int,
    *,
    on_connect: Callable[[bool], None] | None = None,
    scheduler: Scheduler | None = None,
    faults: Faults | None = None,
) -> None:
    """Keep a device connected over TCP. Never returns.

    After a disconnection it reconnects with a delay that grows up to 0.25 s.

    Args:
        device: The device.
        host: Where the robot listens.
        port: Its port, 1..65535.
        on_connect: Called with True when the device is connected, with False when an attempt failed
            or the line ended.
        scheduler: See `run_emulated`.
        faults: The faults of the line.
    """
    delay = _MIN_RETRY
    while True:
        started = trio.current_time()
        with contextlib.suppress(OSError):
            async with await trio.open_tcp_stream(host, port) as stream:
                device.reset()
                if on_connect is not None:
                    on_connect(True)
                link = SocketLink(stream, f"tcp://{host}:{port}")
                await _run_faulty(device, link, scheduler, faults, link.reset_at_close)
        if on_connect is not None:
            on_connect(False)
        if trio.current_time() - started > _SETTLED:
            delay = _MIN_RETRY
        await trio.sleep(delay if faults is None else delay + faults.reconnect_delay())
        delay = min(2 * delay, _MAX_RETRY)


async def serve_pty(
    device: EmulatedDevice,
    path: Path | None = None,
    *,
    scheduler: Scheduler | None = None,
    faults: Faults | None = None,
    on_port: Callable[[str], None] | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a device on a pseudo-terminal until cancelled.

    Then the terminal disappears, like that of an unplugged board.

    Args:
        device: The device.
        path: Where to create a symbolic link to the terminal, e.g. a name that a glob of ports
            matches; removed at the end.
        scheduler: See `run_emulated`.
        faults: The faults of the line. If the line ends, the terminal vanishes and another one
            appears with the same ``path``.
        on_port: Called with the path to open whenever there is a terminal.
        task_status: Receives the path to open: ``path`` if given, else the terminal's own.

    Raises:
        OSError: No more terminals are available, or the symbolic link cannot be created.
    """
    is_first = True
    while True:
        with _terminal(path) as (master, port):
            async with trio.lowlevel.FdStream(master) as stream:
                if is_first:
                    task_status.started(port)
                if on_port is not None:
                    on_port(port)
                await _run_faulty(device, _MasterLink(stream, port), scheduler, faults, None)
        if faults is None or not faults.disconnects:
            return
        is_first = False
        await trio.sleep(faults.reconnect_delay())
        device.reset()


class _MasterLink(StreamLink):
    """A link over the master's end of a pseudo-terminal."""

    _stream: trio.lowlevel.FdStream

    def fileno(self) -> int | None:
        """See `Link.fileno`."""
        return self._stream.fileno()


async def _run_faulty(
    device: EmulatedDevice,
    link: LinkEnd,
    scheduler: Scheduler | None,
    faults: Faults | None,
    reset: Callable[[], object] | None,
) -> None:
    if faults is None:
        await run_emulated(device, link, scheduler=scheduler)
        return
    faulty = FaultyLink(link, faults, reset)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(faulty.run)
        await run_emulated(device, faulty, scheduler=scheduler)
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def _terminal(path: Path | None) -> Iterator[tuple[int, str]]:
    """A new pseudo-terminal: its master, which the caller closes, and the path to open."""
    master, slave = os.openpty()
    # Our own slave stays open so that the terminal, like a board, survives when its users close it.
    try:
        tty.setraw(slave)
        port = os.ttyname(slave)
        if path is None:
            yield master, port
        else:
            try:
                path.symlink_to(port)
            except OSError:
                os.close(master)
                raise
            try:
                yield master, str(path)
            finally:
                path.unlink(missing_ok=True)
    finally:
        os.close(slave)
