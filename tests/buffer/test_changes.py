"""Waiting for changes, and transactions that roll back."""

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

CATALOG = catalog.load()
MOTOR = int(DeviceUID(12, 7, 1))
SWITCH = int(DeviceUID(0, 7, 1))


class Sides:
    """Two stores that act as two processes with the same buffers."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.wakeups = Wakeups(slot=DEVICE_SLOT)
        self.device = BufferStore(CATALOG, prefix, wakeups=self.wakeups)
        self.reader = BufferStore(
            CATALOG, prefix, wakeups=Wakeups(self.wakeups.fds, slot=ROOT_SLOT)
        )

    def pair(self, uid: int) -> tuple[DeviceBuffer, DeviceBuffer]:
        theirs = self.device.get_or_open(uid)
        theirs.valid = True
        return theirs, self.reader.get_or_open(uid, create=False)

    def in_fork(self, uid: int) -> DeviceBuffer:
        """Open the device's buffer in a forked process."""
        return BufferStore(CATALOG, self.prefix, wakeups=self.wakeups).get_or_open(
            uid, create=False
        )


@pytest.fixture
def sides(prefix: str) -> Iterator[Sides]:
    sides = Sides(prefix)
    yield sides
    sides.device.close()
    sides.reader.close()
    sides.wakeups.close()


async def changes_of(buffer: Buffer, *params: str) -> frozenset[str]:
    with trio.fail_after(30):
        return await buffer.changed(*params)


async def is_waiting(buffer: Buffer, *params: str) -> bool:
    with trio.move_on_after(0.02):
        await buffer.changed(*params)
        return False
    return True


async def test_each_change_is_reported_once_and_only_if_requested(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    theirs.update(DevData(0b101, b"\x01\x01"))
    theirs.update(DevData(0b001, b"\x00"))
    assert await changes_of(ours) == {"switch0", "switch2"}
    assert await is_waiting(ours)
    theirs.set("switch0", True)
    assert await is_waiting(ours, "switch1")
    assert await changes_of(ours, "switch0", "switch1") == {"switch0"}


async def test_waiting_task_is_woken_by_another_process(sides: Sides) -> None:
    _, ours = sides.pair(SWITCH)
    async with trio.open_nursery() as nursery:
        for _ in range(3):  # all tasks of a process share its wakeup
            nursery.start_soon(changes_of, ours)
        await trio.testing.wait_all_tasks_blocked(0.01)
        pid = os.fork()
        if pid == 0:
            sides.in_fork(SWITCH).update(DevData(0b1, b"\x01"))
            os._exit(0)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends at once
    assert ours.received == {"switch0": 1, "switch1": 0, "switch2": 0}


async def test_cancelled_task_does_not_stop_others_from_waking(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    first = trio.CancelScope()

    async def give_up() -> None:
        with first:
            await ours.changed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(changes_of, ours)
        await trio.testing.wait_all_tasks_blocked(0.01)
        first.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        theirs.set_all({"switch1": True})


async def test_connection_change_is_reported_without_parameters(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes_of, ours)
        await trio.testing.wait_all_tasks_blocked(0.01)
        theirs.valid = False
    assert await changes_of(ours) == frozenset(), "reported to each task"
    assert await is_waiting(ours)
    theirs.invalidate_without_lock()
    assert await changes_of(ours) == frozenset()


async def test_changes_without_waiting_tasks_signal_no_wakeup(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    assert await is_waiting(ours)
    theirs.set("switch0", True)  # signals once, because a task waited before
    os.eventfd_read(sides.wakeups.fds[ROOT_SLOT])
    theirs.set("switch0", False)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(sides.wakeups.fds[ROOT_SLOT])


async def test_waiting_continues_while_another_process_holds_the_lock(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    pid = os.fork()
    if pid == 0:
        with sides.in_fork(SWITCH).transaction():
            signal.pause()
    try:
        with trio.fail_after(30):
            while is_free(theirs):  # noqa: ASYNC110 - no event for locks
                await trio.sleep(0.001)
        assert await is_waiting(ours)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends at once
    with capture_logs() as events:
        theirs.set("switch0", True)
    assert [event["recoveries"] for event in events] == [1]
    assert await changes_of(ours) == {"switch0"}


def is_free(buffer: Buffer) -> bool:
    try:
        buffer.snapshot()
    except BufferBusyError:
        return False
    return True


async def test_waiting_needs_wakeups_and_known_parameters(sides: Sides) -> None:
    theirs, ours = sides.pair(SWITCH)
    with pytest.raises(DeviceBufferError, match="did you mean switch1"):
        await ours.changed("swich1")
    theirs.wakeups = None
    with pytest.raises(DeviceBufferError, match="no wakeups"):
        await theirs.changed()


def fail_within_transaction(buffer: DeviceBuffer) -> None:
    with buffer.transaction():
        buffer.set("enc_pos", 2.0)
        buffer.write("duty_cycle", 0.5)
        with buffer.transaction():
            buffer.set("enc_vel", 3.0)
        buffer.set("motor_current", "much")


def test_failed_transaction_is_rolled_back(sides: Sides) -> None:
    theirs, _ = sides.pair(MOTOR)
    theirs.set("enc_pos", 1.0)
    before = theirs.last_update
    with pytest.raises(TypeError):
        fail_within_transaction(theirs)
    assert (theirs.get("enc_pos"), theirs.get("enc_vel"), theirs.last_update) == (1.0, 0.0, before)
    assert not theirs.dirty
    with theirs.transaction():
        theirs.set("enc_pos", 2.0)
    assert theirs.get("enc_pos") == 2.0


def test_parameters_received_and_sent_are_counted(sides: Sides) -> None:
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


def test_writes_with_other_tokens_are_dropped(sides: Sides) -> None:
    theirs, ours = sides.pair(MOTOR)
    theirs.write("duty_cycle", 0.5)  # with the device process's token
    ours.write("deadband", 0.0)  # with the root's token
    (taken,) = theirs.take_dev_rw(lambda: 1 << ROOT_SLOT)
    assert (taken.message, taken.tokens) == (DevWrite(1 << 13, bytes(4)), 1 << ROOT_SLOT)
    assert theirs.counters.writes_dropped == 1
    assert theirs.take_dev_rw() == []
