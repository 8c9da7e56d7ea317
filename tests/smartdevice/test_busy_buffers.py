"""Locks of the shared memory that another process holds.

They do not block the event loop, and delay a device only while they are held.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support.device_robot import open_robot

from rt import catalog
from rt.buffer import BufferStore, DeviceBuffer
from rt.buffer.arena import Arena
from rt.errors import BufferBusyError, DeviceError
from rt.protocol.message import SubRes
from rt.smartdevice.discovery import PING_INTERVAL, open_buffer

CATALOG = catalog.load()
MOTOR = 12 << 72


class BusyStore(BufferStore):
    """A store whose arena is used by another process until a given time."""

    def __init__(self, until: float) -> None:
        super().__init__(CATALOG, "", shared=False)
        self._until = until
        self.tries = 0

    def get_or_open(self, key: Any, /, *, create: bool = True) -> Any:
        self.tries += 1
        if trio.current_time() < self._until:
            raise BufferBusyError("busy")
        return super().get_or_open(key, create=create)


def answer() -> SubRes:
    return SubRes(0, 0, MOTOR)


async def test_buffer_is_opened_when_lock_becomes_free(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = BusyStore(trio.current_time() + 3)
    buffer = await open_buffer(store, answer(), "port", within=10)
    assert buffer is store[MOTOR]
    assert 3 <= trio.current_time() <= 3 + PING_INTERVAL
    assert store.tries < 40, "it does not spin"


async def test_device_is_refused_while_lock_stays_held(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(DeviceError, match=r"port: cannot open a buffer for device .*: busy"):
        await open_buffer(BusyStore(float("inf")), answer(), "port", within=10)
    assert trio.current_time() <= 10 + PING_INTERVAL


@contextmanager
def locked(buffer: DeviceBuffer) -> Iterator[None]:
    """Hold the buffer's lock in another thread."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with buffer.transaction():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(30)
        yield
    finally:
        done.set()
        thread.join()


async def test_stale_buffer_is_invalidated_although_its_lock_is_held(arena: Arena) -> None:
    with BufferStore(CATALOG, arena.prefix) as earlier:
        old = earlier.get_or_open(MOTOR)
        old.valid = True
        with locked(old):
            async with open_robot(arena.prefix) as robot:
                assert not old.valid
                robot.nursery.cancel_scope.cancel()
