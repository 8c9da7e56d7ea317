"""Several processes may move devices at the same time, each under a lease of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from support.device_robot import CATALOG, Board, Robot, make_board
from support.leases import keep

from rt.buffer import BufferStore, DeviceBuffer
from rt.protocol.message import DevDisable, DevWrite

SESSION_SLOT = 9


@contextmanager
def seen_from(robot: Robot, prefix: str, board: Board, slot: int) -> Iterator[DeviceBuffer]:
    """The board's buffer as the process of a slot opens it."""
    with BufferStore(CATALOG, prefix, write_event=robot.write_event, slot=slot) as store:
        yield store.get_or_open(board.device.uid, create=False)


async def hold(robot: Robot, slot: int) -> None:
    lease = robot.leases.lease(slot)
    while True:
        if keep(lease):
            robot.write_event.signal()
        await trio.sleep(0.02)


async def test_end_of_lease_stops_only_what_its_holder_moved(robot: Robot, prefix: str) -> None:
    left, right = make_board("polar-bear", 1), make_board("polar-bear", 2)
    await robot.plug(left, "left")
    await robot.plug(right, "right")
    robot.nursery.start_soon(robot.keep_lease)
    with seen_from(robot, prefix, right, SESSION_SLOT) as buffer, trio.CancelScope() as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, robot, SESSION_SLOT)
            await trio.sleep(0.05)
            robot.buffer_of(left).write("duty_cycle", 0.5)
            buffer.write("duty_cycle", 0.25)
            await left.receives(DevWrite)
            await right.receives(DevWrite)
            left.received.clear()
            right.received.clear()
            session.cancel()
    await right.receives(DevDisable)  # the lease is not renewed
    assert not any(isinstance(message, DevDisable) for message in left.received)
    assert robot.manager.guard.allowed == 1 << robot.lease.token


async def test_write_without_own_lease_is_dropped(robot: Robot, prefix: str) -> None:
    board = make_board("polar-bear")
    await robot.plug(board)
    robot.nursery.start_soon(robot.keep_lease)
    await trio.sleep(0.05)
    with seen_from(robot, prefix, board, SESSION_SLOT) as other:
        other.write("deadband", 0.1)
        robot.buffer_of(board).write("duty_cycle", 0.5)
        (write,) = await board.receives(DevWrite)
        assert isinstance(write, DevWrite)
        assert write.params == 1 << 0
        assert other.counters.writes_dropped == 1


async def test_unnoticed_change_of_lease_stops_what_was_moved(robot: Robot) -> None:
    board = make_board("polar-bear")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    robot.hold_lease()
    buffer.write("duty_cycle", 0.5)
    await board.receives(DevWrite)
    buffer.write("duty_cycle", 1.0)  # this one waits for the write interval
    robot.lease.release()
    keep(robot.lease)  # the next mode, before the device process checks the leases
    robot.nursery.start_soon(robot.keep_lease)
    buffer.write("deadband", 0.125)  # written once in its setup
    board.received.clear()
    robot.write_event.signal()
    await board.receives(
        lambda message: isinstance(message, DevWrite) and message.params == 1 << 13
    )
    sent = [message for message in board.received if isinstance(message, DevWrite | DevDisable)]
    assert isinstance(sent[0], DevDisable)
    assert len(sent) == 2, "nothing that the previous mode wrote"
    assert board.device.values["duty_cycle"] == 0
    assert buffer.counters.writes_dropped == 1
    assert robot.manager.guard.allowed == 1 << robot.lease.token


async def test_end_of_last_lease_keeps_writes_of_new_one(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = make_board("polar-bear")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    robot.hold_lease()
    robot.manager.guard.check()
    really_disable = robot.manager._on_lapse

    def disable(ended: int, moved: int) -> None:
        robot.nursery.start_soon(robot.keep_lease)
        robot.hold_lease()
        buffer.write("deadband", 0.125)  # once, as in a setup
        really_disable(ended, moved)

    monkeypatch.setattr(robot.manager.guard, "_on_lapse", disable)
    robot.drop_lease()
    (write,) = await board.receives(DevWrite)
    assert isinstance(write, DevWrite)
    assert write.params == 1 << 13
    assert buffer.counters.writes_dropped == 0
