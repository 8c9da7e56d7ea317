"""The words that the root, the device process and the brake share."""

import os
import time
from collections.abc import Iterator

import pytest

from rt.brake import heartbeat
from rt.brake.heartbeat import SIZE, Heartbeat


@pytest.fixture
def memory() -> Iterator[int]:
    fd = heartbeat.make()
    yield fd
    os.close(fd)


@pytest.fixture
def device(memory: int) -> Iterator[Heartbeat]:
    """Yield the words as the device process sees them."""
    words = Heartbeat(memory)
    yield words
    words.close()


@pytest.fixture
def brake(memory: int) -> Iterator[Heartbeat]:
    """Yield the words as the brake sees them."""
    words = Heartbeat(memory)
    yield words
    words.close()


def test_first_stamp_after_a_rest_wakes_the_brake(device: Heartbeat, brake: Heartbeat) -> None:
    assert brake.stamp == 0
    assert device.renew()
    assert not device.renew()
    assert 0 < brake.stamp <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    device.clear()
    assert brake.stamp == 0
    assert device.renew()


def test_expiry_is_kept_until_the_device_process_rests(device: Heartbeat, brake: Heartbeat) -> None:
    device.renew(7)
    device.renew()
    assert brake.expiry == 7
    device.clear()
    assert brake.expiry == 0


def test_device_process_is_settled_only_without_pending_lines(
    device: Heartbeat, brake: Heartbeat
) -> None:
    device.renew()
    assert not device.is_settled
    for _ in range(2):
        brake.set_pending(2)
    brake.settle(device.stamp)
    assert not device.is_settled
    brake.set_pending(0)
    assert device.is_settled
    device.renew()
    assert not device.is_settled


def test_memory_cannot_be_truncated(memory: int) -> None:
    for size in (0, 2 * SIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(memory, size)


def test_orders_share_no_byte_with_the_heartbeat(memory: int, device: Heartbeat) -> None:
    ours, theirs = heartbeat.map_orders(memory, 512), heartbeat.map_orders(memory, 512)
    ours[:] = b"\xff" * 512
    assert theirs == ours
    assert (device.stamp, device.expiry, device.is_settled) == (0, 0, True)
