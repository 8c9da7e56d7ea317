"""Waiting for changes, and transactions that take back what they did."""

import os
import signal
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from rt import catalog
from rt.buffer import Buffer, BufferStore, DeviceBuffer
from rt.buffer.wakeup import DEVICE_SLOT, ROOT_SLOT, Wakeups
from rt.errors import BufferBusyError, DeviceBufferError
from rt.protocol.message import DevData, DevWrite
from rt.protocol.uid import DeviceUID

KNOWN = catalog.load()
MOTOR = int(DeviceUID(12, 7, 1))
SWITCH = int(DeviceUID(0, 7, 1))


class Sides:
    """Two processes that share a robot's buffers, played by two stores."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.wakeups = Wakeups(slot=DEVICE_SLOT)
        self.device = BufferStore(KNOWN, prefix, wakeups=self.wakeups)
        self.reader = BufferStore(KNOWN, prefix, wakeups=Wakeups(self.wakeups.fds, slot=ROOT_SLOT))

    def pair(self, uid: int) -> tuple[DeviceBuffer, DeviceBuffer]:
        theirs = self.device.get_or_open(uid)
        theirs.valid = True
        return theirs, self.reader.get_or_open(uid, create=False)

    def in_fork(self, uid: int) -> DeviceBuffer:
        """The device's buffer in a process that was forked, which has to open it anew."""
        return BufferStore(KNOWN, self.prefix, wakeups=self.wakeups).get_or_open(uid, create=False)


@pytest.fixture
def sides(prefix: str) -> Iterator[Sides]:
    sides = Sides(prefix)
    yield sides
    sides.device.close()
    sides.reader.close()
    sides.wakeups.close()


async def told(buffer: Buffer, *params: str) -> frozenset[str]:
    with trio.fail_after(30):
        return await buffer.changed(*params)


async def is_waiting(buffer: Buffer, *params: str) -> bool:
    with trio.move_on_after(0.02):
        await buffer.changed(*params)
        return False
    return True


async def test_what_came_in_is_told_once_and_only_what_was_asked_for(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    theirs.update(DevData(0b101, b"\x01\x01"))
    theirs.update(DevData(0b001, b"\x00"))
    assert await told(ours) == {"switch0", "switch2"}
    assert await is_waiting(ours)
    theirs.set("switch0", True)
    assert await is_waiting(ours, "switch1")
    assert await told(ours, "switch0", "switch1") == {"switch0"}


async def test_a_waiting_task_is_woken_by_another_process(sides: Sides) -> None:
    _, ours = sides.pair(SWITCH)
    async with trio.open_nursery() as nursery:
        for _ in range(3):  # all tasks of a process share its bell, and each is told
            nursery.start_soon(told, ours)
        await trio.testing.wait_all_tasks_blocked(0.01)
        pid = os.fork()
        if pid == 0:
            sides.in_fork(SWITCH).update(DevData(0b1, b"\x01"))
            os._exit(0)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends at once
    assert ours.received == {"switch0": 1, "switch1": 0, "switch2": 0}


async def test_a_task_whose_fellow_is_cancelled_is_still_woken(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    first = trio.CancelScope()

    async def give_up() -> None:
        with first:
            await ours.changed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(told, ours)
        await trio.testing.wait_all_tasks_blocked(0.01)
        first.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        theirs.set_all({"switch1": True})


async def test_a_device_that_comes_or_goes_is_a_change_without_parameters(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told, ours)
        await trio.testing.wait_all_tasks_blocked(0.01)
        theirs.valid = False
    assert await told(ours) == frozenset(), "each task is told"
    assert await is_waiting(ours)
    theirs.invalidate_without_lock()
    assert await told(ours) == frozenset()


async def test_changes_that_nobody_waits_for_ring_no_bell(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    assert await is_waiting(ours)
    theirs.set("switch0", True)  # rings, for whoever waited a moment ago
    os.eventfd_read(sides.wakeups.fds[ROOT_SLOT])
    theirs.set("switch0", False)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(sides.wakeups.fds[ROOT_SLOT])


async def test_a_buffer_that_is_locked_by_another_process_is_waited_for_too(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    pid = os.fork()
    if pid == 0:
        with sides.in_fork(SWITCH).transaction():
            signal.pause()
    try:
        with trio.fail_after(30):
            while is_free(theirs):  # noqa: ASYNC110 - another process takes a lock without a bell
                await trio.sleep(0.001)
        assert await is_waiting(ours)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends at once
    with capture_logs() as events:
        theirs.set("switch0", True)
    assert [event["recoveries"] for event in events] == [1]
    assert await told(ours) == {"switch0"}


def is_free(buffer: Buffer) -> bool:
    try:
        buffer.snapshot()
    except BufferBusyError:
        return False
    return True


async def test_nobody_waits_without_bells_or_for_what_is_not_there(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    with pytest.raises(DeviceBufferError, match="did you mean 'switch1'"):
        await ours.changed("swich1")
    theirs.wakeups = None
    with pytest.raises(DeviceBufferError, match="no bells"):
        await theirs.changed()


def change_in_vain(buffer: DeviceBuffer) -> None:
    with buffer.transaction():
        buffer.set("enc_pos", 2.0)
        buffer.write("duty_cycle", 0.5)
        with buffer.transaction():
            buffer.set("enc_vel", 3.0)
        buffer.set("motor_current", "much")


def test_a_transaction_that_fails_takes_everything_back(sides: Sides) -> None:
    theirs, _ = sides.pair(MOTOR)
    theirs.set("enc_pos", 1.0)
    before = theirs.last_update
    with pytest.raises(TypeError):
        change_in_vain(theirs)
    assert (theirs.get("enc_pos"), theirs.get("enc_vel"), theirs.last_update) == (1.0, 0.0, before)
    assert not theirs.dirty
    with theirs.transaction():
        theirs.set("enc_pos", 2.0)
    assert theirs.get("enc_pos") == 2.0


def test_counters_say_how_often_a_parameter_came_and_went(sides: Sides) -> None:
    theirs, ours = sides.pair(MOTOR)
    for _ in range(300):
        theirs.update(DevData(1 << 11 | 1, bytes(8)))
    ours.write("deadband", 0.1)
    for message in theirs.emit_dev_rw():
        theirs.count_sent(message)
    assert {name: count for name, count in ours.received.items() if count} == {
        "duty_cycle": 300,
        "enc_vel": 300,
    }
    assert {name: count for name, count in ours.sent.items() if count} == {"deadband": 1}
    assert (ours.counters.writes_sent, ours.counters.frames_sent) == (1, 1)


def test_only_the_writes_of_those_who_may_are_taken(sides: Sides) -> None:
    theirs, ours = sides.pair(MOTOR)
    theirs.write("duty_cycle", 0.5)  # under the device process's seat
    ours.write("deadband", 0.0)  # under the root's
    (taken,) = theirs.take_dev_rw(lambda: 1 << ROOT_SLOT)
    assert (taken.message, taken.tokens) == (DevWrite(1 << 13, bytes(4)), 1 << ROOT_SLOT)
    assert theirs.counters.writes_dropped == 1
    assert theirs.take_dev_rw() == []
