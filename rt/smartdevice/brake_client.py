"""The device process's connection to the brake: its open lines and its heartbeat.

Invariant: nothing here waits for the brake. Messages that its channel does not take are sent later.
"""

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

import trio

from rt import log
from rt.brake.connection import adopt, receive, send
from rt.brake.heartbeat import Heartbeat
from rt.brake.output_queue import TIME_LIMIT
from rt.brake.protocol import Kind, Message, decode
from rt.buffer.clock import boottime_ns
from rt.link.link import Link

HEARTBEAT_INTERVAL: Final = 0.02
"""Time between two stamps while a device can move, in s."""
_LAPSED_INTERVAL: Final = 0.002
"""The same while no lease is valid and a DEV_DISABLE is still to be written."""
_SLACK: Final = 0.001
"""How long after the end of a lease the brake learns whether it was renewed, in s."""
_FULL: Final = frozenset({errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a channel that takes messages later: its queue is full, or holds too many descriptors.
"""
_CLOSE_TIMEOUT: Final = 2 * TIME_LIMIT
"""How long this process continues to stamp at its end until its lines are closed, in s; each line
may take `TIME_LIMIT`.
"""
_PAUSE: Final = 0.01
"""Time until a message that the channel did not take is sent again, in s."""


class BrakeClient:
    """The device process's end of the connection to the brake.

    Args:
        fds: The inherited descriptors of the connection (`rt.brake.connection.Endpoint`); empty
            without a brake.
        is_moving: Returns whether a device can move: a lease is armed, or a DEV_DISABLE that is due
            was not yet written to its line.
        on_braked: Called when the brake has disabled the devices instead of this process.
        end: Returns when the first of the valid leases ends if none is renewed (ns of
            CLOCK_BOOTTIME); 0 if none is valid.
    """

    def __init__(
        self,
        fds: Sequence[int],
        is_moving: Callable[[], bool],
        on_braked: Callable[[], None],
        end: Callable[[], int] = lambda: 0,
    ) -> None:
        self._is_moving = is_moving
        self._on_braked = on_braked
        self._end = end
        self._lines: dict[int, Link] = {}
        self._numbers: dict[Link, int] = {}
        self._count = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._outdated = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._disconnected = not fds
        self._channel: socket.socket | None = None
        if fds:
            channel, self._wakeup, memory = adopt(fds)
            self._channel = socket.socket(fileno=channel)
            self._heartbeat = Heartbeat(memory)
            self._heartbeat.clear()  # the stamp of an earlier process

    def stamp(self) -> None:
        """Stamp the heartbeat before a write is sent.

        The first stamp wakes the brake, which then sleeps until a stamp is late.
        """
        if self._channel is not None and self._heartbeat.renew(
            0 if self._heartbeat.stamp else self._end()
        ):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self._wakeup, 1)
            self._changed.unpark_all()

    def note_lapse(self) -> None:
        """Stamp again soon, now that a lease has ended."""
        self._changed.unpark_all()

    def add_line(self, link: Link) -> None:
        """Register a line before anything is written to it.

        A line without a descriptor is ignored.
        """
        if self._channel is None or (fd := link.fileno()) is None:
            return
        self._count += 1
        if not self._lines:
            self._idle = trio.Event()
        self._lines[self._count] = link
        self._numbers[link] = self._count
        if not self._send(Kind.LINE, self._count, link.name, fd):
            self._outdated.set()

    def remove_line(self, link: Link) -> None:
        """Unregister a line before it is closed; an unregistered line is ignored.

        Its device has taken a last DEV_DISABLE, or is dead.
        """
        number = self._numbers.pop(link, None)
        if number is not None:
            del self._lines[number]
            if not self._send(Kind.CLOSED, number):
                self._outdated.set()
            if not self._lines:
                self._heartbeat.clear()
                self._idle.set()

    def close(self) -> None:
        """Close the channel, after all lines are closed."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._idle.set()

    async def run(self) -> None:
        """Stamp, and answer the brake, until cancelled.

        After the cancellation this continues until all lines are closed, for at most
        `_CLOSE_TIMEOUT`.
        """
        if self._channel is None:
            return
        self._outdated.set()
        scope = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, self._channel, scope)
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                    await self._idle.wait()
                scope.cancel()

    async def _serve(self, channel: socket.socket, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_heartbeats)
                nursery.start_soon(self._receive, channel)
                nursery.start_soon(self._send_state, channel)

    async def _send_heartbeats(self) -> None:
        while True:
            if self._is_moving():
                end = self._end()
                self._heartbeat.renew(end)
                remaining = (end - boottime_ns()) / 1e9 + _SLACK if end else _LAPSED_INTERVAL
                with trio.move_on_after(min(HEARTBEAT_INTERVAL, max(remaining, _SLACK))):
                    await self._changed.park()
            else:
                self._heartbeat.clear()
                await self._changed.park()

    async def _receive(self, channel: socket.socket) -> None:
        """Handle the brake's messages, and its end."""
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            while True:
                await trio.lowlevel.wait_readable(channel)
                try:
                    data, fds = receive(channel)
                except BlockingIOError:
                    continue
                except OSError:  # the brake ended with unread messages
                    data, fds = b"", []
                if not data:  # the root and the brake have ended
                    self._disconnected = True
                    return
                message = decode(data)
                if message is not None and message.kind is Kind.ASK and len(fds) == 1:
                    scope.cancel()
                    scope = trio.CancelScope()
                    nursery.start_soon(self._watch_brake, fds.pop(), scope)
                    self._disconnected = False
                    self._outdated.set()
                elif message is not None and message.kind is Kind.BRAKED:
                    self._on_braked()
                for fd in fds:
                    os.close(fd)

    async def _watch_brake(self, pidfd: int, scope: trio.CancelScope) -> None:
        """Stop sending to a brake that has ended.

        Descriptors in a queue that is not read stay open.
        """
        try:
            with scope:
                await trio.lowlevel.wait_readable(pidfd)
                self._disconnected = True
                log.get_logger().warning("brake ended; waiting for its restart")
        finally:
            os.close(pidfd)

    async def _send_state(self, channel: socket.socket) -> None:
        """Send the whole state when the brake asks, or its channel did not take a message."""
        while True:
            await self._outdated.wait()
            self._outdated = trio.Event()
            pidfd = os.pidfd_open(os.getpid())
            try:
                await self._send_when_writable(
                    channel, functools.partial(self._send, Kind.HELLO, os.getpid(), "", pidfd)
                )
            finally:
                os.close(pidfd)
            for number in list(self._lines):
                await self._send_when_writable(channel, functools.partial(self._send_line, number))
            await self._send_when_writable(channel, lambda: self._send(Kind.ALL, 0))

    async def _send_when_writable(self, channel: socket.socket, send: Callable[[], bool]) -> None:
        """Send a message as soon as the channel takes it."""
        while not send():
            await trio.sleep(_PAUSE)
            await trio.lowlevel.wait_writable(channel)

    def _send_line(self, number: int) -> bool:
        """Send a line, unless it was closed meanwhile."""
        link = self._lines.get(number)
        fd = None if link is None else link.fileno()
        return link is None or fd is None or self._send(Kind.LINE, number, link.name, fd)

    def _send(self, kind: Kind, number: int, name: str = "", fd: int | None = None) -> bool:
        """Send a message; return False if the channel takes it later.

        Nothing is sent after its end.
        """
        if self._channel is None or self._disconnected:
            return True
        try:
            send(self._channel, Message(kind, number, name), fd)
        except OSError as error:
            if error.errno in _FULL:
                return False
            if error.errno != errno.EBADF:  # EBADF: the line was closed meanwhile
                self._disconnected = True  # the root and the brake have ended
        return True
