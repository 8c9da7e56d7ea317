"""A link with the faults that `rt.emulator.faults` decides: its I/O, without any decision.

It is the device's end of a line. Frames are dropped, corrupted and delayed both ways; the line is
closed when its time has come; a frozen device neither sends nor receives.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from rt.emulator.faults import Faults
from rt.link.link import LinkEnd, LinkGoneError
from rt.protocol.frames import DELIMITER, MAX_FRAME

_MAX_QUEUED: Final = 1024
"""How many frames may be delayed at the same time; a device that sends more has to wait."""


class FaultyLink:
    """A line over another one, with faults. `run` has to run while it is used.

    Args:
        link: The line without faults; this one closes it.
        faults: The faults.
        reset: Makes the coming end of the line a reset; None if the line has no resets.
    """

    def __init__(
        self, link: LinkEnd, faults: Faults, reset: Callable[[], object] | None = None
    ) -> None:
        self._link = link
        self._faults = faults
        self._reset = reset
        self._outbound: deque[tuple[float, bytes]] = deque()
        self._inbound: deque[tuple[float, bytes]] = deque()
        self._tail = b""
        self._changed = trio.lowlevel.ParkingLot()
        self._space = trio.lowlevel.ParkingLot()

    @property
    def name(self) -> str:
        """See `Link.name`."""
        return self._link.name

    async def run(self) -> None:
        """Send delayed frames when they are due, and close the line when its time has come.

        Returns when the line has ended.
        """
        end = trio.current_time() + self._faults.lifetime()
        while (now := trio.current_time()) < end:
            if self._outbound and self._outbound[0][0] <= now:
                _, frame = self._outbound.popleft()
                self._space.unpark_all()
                if self._faults.frozen_until(now) <= now:
                    try:
                        with trio.move_on_at(end):
                            await self._link.send(frame)
                    except (LinkGoneError, trio.ClosedResourceError):
                        return
                continue
            with trio.move_on_at(min(end, self._outbound[0][0]) if self._outbound else end):
                await self._changed.park()
        if self._reset is not None and self._faults.ends_with_reset():
            self._reset()
        await self._link.aclose()

    async def receive(self) -> bytes:
        """See `Link.receive`; returns whole frames, or what is left of them."""
        while True:
            now = trio.current_time()
            due = b""
            while self._inbound and self._inbound[0][0] <= now:
                due += self._inbound.popleft()[1]
            if due and self._faults.frozen_until(now) <= now:
                return due
            with trio.move_on_at(self._inbound[0][0] if self._inbound else float("inf")):
                if len(self._inbound) >= _MAX_QUEUED:
                    await trio.sleep_forever()
                await self._receive_frames()

    async def send(self, data: bytes, /) -> None:
        """See `Link.send`.

        Returns when the frames are queued; the end of the line is raised by `receive`.
        """
        now = trio.current_time()
        if self._faults.frozen_until(now) > now:
            await trio.lowlevel.checkpoint()
            return
        for frame in _frames(data):
            self._enqueue(self._outbound, frame, now)
        self._changed.unpark_all()
        while len(self._outbound) >= _MAX_QUEUED:
            await self._space.park()
        await trio.lowlevel.checkpoint()

    def send_nowait(self, _data: bytes, /) -> bool:
        """See `Link.send_nowait`; always False."""
        return False

    async def aclose(self) -> None:
        """See `Link.aclose`."""
        await self._link.aclose()

    async def _receive_frames(self) -> None:
        try:
            data = await self._link.receive()
        except LinkGoneError:
            # A frozen device does not notice the end either.
            await trio.sleep_until(self._faults.frozen_until(trio.current_time()))
            raise
        now = trio.current_time()
        if self._faults.frozen_until(now) > now:
            self._tail = b""
            self._inbound.clear()
            return
        whole, delimiter, tail = (self._tail + data).rpartition(DELIMITER)
        self._tail = tail[-2 * MAX_FRAME :]
        for frame in _frames(whole + delimiter):
            self._enqueue(self._inbound, frame, now)

    def _enqueue(self, queue: deque[tuple[float, bytes]], frame: bytes, now: float) -> None:
        frame = self._faults.transform(frame)
        if frame:
            queue.append(
                (max(now + self._faults.next_delay(), queue[-1][0] if queue else now), frame)
            )


def _frames(data: bytes) -> list[bytes]:
    """Split bytes into frames, each with its delimiter; empty ones are left out."""
    return [frame + DELIMITER for frame in data.split(DELIMITER) if frame]
