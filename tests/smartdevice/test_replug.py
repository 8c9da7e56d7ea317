"""Devices over TCP, received by one task: they come and go without leaks, and no data is lost."""

import contextlib
import ctypes
import functools
import operator
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from support.device_robot import Board, Robot, make_board

from rt.buffer import segment
from rt.emulator.lines import EmulatedDevice
from rt.errors import BufferBusyError
from rt.protocol import frames
from rt.protocol.message import DevData, DevWrite, Error, ErrorCode, HbReq, HbRes, Ping, SubReq

ROUNDS = 100


async def until(condition: Callable[[], Any]) -> None:
    """Poll a condition that no event announces, such as another task's next step."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)


def resources(prefix: str) -> tuple[int, int, int]:
    """Count living tasks, open descriptors and segments."""
    return (
        trio.lowlevel.current_statistics().tasks_living,
        len(list(Path("/proc/self/fd").iterdir())),
        len(list(segment.names(prefix))),
    )


def address_of(name: str) -> int:
    """Return the address at which a segment is mapped in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(segment.attach(name)))


async def test_replugging_keeps_the_buffer_and_leaks_nothing(robot: Robot, prefix: str) -> None:
    port = await robot.listen()
    robot.nursery.start_soon(robot.keep_lease)
    uid = make_board("polar-bear").device.uid
    buffer = robot.buffers.get_or_open(uid)
    address = address_of(f"{prefix}polar-bear@{uid}")
    before: tuple[int, int, int] | None = None
    for turn in range(1, ROUNDS + 1):
        board = make_board("polar-bear")
        unplug = await robot.plug_tcp(board, port)
        await board.receives(SubReq)
        await until(lambda: uid in robot.manager.devices)
        assert robot.buffer_of(board) is buffer
        assert address_of(f"{prefix}polar-bear@{uid}") == address
        await until(lambda: buffer.valid)
        assert not [
            message for message in board.received if isinstance(message, DevWrite)
        ]  # nothing is replayed
        await robot.written(board, duty_cycle=turn / 128)
        buffer.write("duty_cycle", -1.0)  # pending when it goes
        await unplug()
        await until(lambda: not robot.manager._clients)
        assert not buffer.valid
        assert not buffer.dirty
        if turn == 3:
            await trio.testing.wait_all_tasks_blocked(0.01)
            before = resources(prefix)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert before is not None
    assert all(now <= then for now, then in zip(resources(prefix), before, strict=True))
    assert buffer.counters.connects == ROUNDS


async def test_returning_device_replaces_its_stale_line(robot: Robot) -> None:
    port = await robot.listen()
    board = make_board("limit-switch")
    # A connection that was cut elsewhere: it stays silent.
    stale = await trio.open_tcp_stream("127.0.0.1", port)
    async with stale:
        await stale.send_all(frames.encode(board.device.handle(Ping(), 0)[0]))
        await until(lambda: board.device.uid in robot.manager.devices)
        buffer = robot.buffer_of(board)
        old = robot.manager.devices[board.device.uid]
        await robot.plug_tcp(board, port)
        await until(lambda: robot.manager.devices.get(board.device.uid) not in {None, old})
        await until(lambda: buffer.valid)
        assert robot.buffer_of(board) is buffer
        assert old.ended.is_set()


async def test_duplicate_uid_is_refused_with_both_ports(robot: Robot) -> None:
    port = await robot.listen()
    first = make_board("polar-bear")
    await robot.plug_tcp(first, port)
    await until(
        lambda: first.device.uid in robot.manager.devices and robot.buffer_of(first).subscription
    )
    with capture_logs() as events:
        await robot.plug_tcp(make_board("polar-bear"), port)
        await until(lambda: [event for event in events if "refused" in event["event"]])
    (event,) = [event for event in events if "refused" in event["event"]]
    assert event["event"].count("tcp://127.0.0.1:") == 2
    assert event["port"] != event["other"]
    assert robot.buffer_of(first).valid
    assert robot.buffer_of(first).subscription, (
        "the second device does not change what is known about the first"
    )
    assert robot.manager.list_uids() == [str(first.device.uid)]


async def test_unknown_device_is_logged_once_with_its_id(robot: Robot) -> None:
    port = await robot.listen()
    unknown = Board(EmulatedDevice(make_board("polar-bear").device.peripheral, 99 << 72))
    unknown.device.on_message = unknown.record
    with capture_logs() as events:
        for turn in range(1, 4):
            await robot.plug_tcp(unknown, port)
            await unknown.receives(Ping, turn)
            await until(lambda: not robot.manager._clients)
    (event,) = [event for event in events if "catalog" in event["event"]]
    assert event["device_id"] == 99


@contextlib.asynccontextmanager
async def raw_device(robot: Robot, name: str) -> Any:
    """An admitted device over TCP whose messages the test writes: its line and its buffer."""
    board = make_board(name)
    async with await trio.open_tcp_stream("127.0.0.1", await robot.listen()) as line:
        await line.send_all(frames.encode(board.device.handle(Ping(), 0)[0]))
        await until(
            lambda: board.device.uid in robot.manager.devices and robot.buffer_of(board).valid
        )
        yield line, robot.buffer_of(board)


async def test_reports_wait_in_order_while_buffer_is_busy(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with raw_device(robot, "limit-switch") as (line, buffer):
        await trio.testing.wait_all_tasks_blocked(0.01)
        stored: list[DevData] = []
        really_update = buffer.update
        busy = 9

        def update(message: DevData) -> None:
            nonlocal busy
            if busy:
                busy -= 1
                raise BufferBusyError("held")
            stored.append(message)
            really_update(message)

        monkeypatch.setattr(buffer, "update", update)
        sent = [
            DevData(0b111, bytes((number >> 2 & 1, number >> 1 & 1, number & 1)))
            for number in range(8)
        ] * 50
        other = make_board("limit-switch", 8, {"switch2": True})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.send_all, b"".join(map(frames.encode, sent[:200])))
            nursery.start_soon(robot.plug, other, "another line")
        await line.send_all(b"".join(map(frames.encode, sent[200:])))
        await until(lambda: len(stored) == len(sent))
        assert stored == sent
        assert buffer.counters.updates_dropped == 0
        await until(lambda: robot.buffer_of(other).valid)  # no other device waited


async def test_heartbeats_are_answered_while_the_buffer_is_busy(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with raw_device(robot, "limit-switch") as (line, buffer):

        def busy(_: object) -> None:
            raise BufferBusyError("held")

        monkeypatch.setattr(buffer, "update", busy)
        await line.send_all(frames.encode(DevData(0b1, b"\1")) + frames.encode(HbReq(42)))
        reader = frames.FrameReader()
        with trio.fail_after(30):
            while HbRes(42) not in reader.feed(bytes(await line.receive_some())):
                pass
        await until(lambda: buffer.counters.updates_dropped)


async def test_errors_are_counted_and_backoff_halves_the_rate(robot: Robot) -> None:
    port = await robot.listen()
    board = make_board("polar-bear")
    await robot.plug_tcp(board, port)
    await board.receives(SubReq)
    buffer = robot.buffer_of(board)
    client = robot.manager.devices[board.device.uid]
    client._receive_path.feed(
        frames.encode(Error(ErrorCode.BAD_CHECKSUM)) + frames.encode(Error(0x42))
    )
    assert buffer.counters.errors_received == 2
    robot.nursery.start_soon(robot.keep_lease)
    await until(lambda: robot.manager.guard.is_open)
    client._receive_path.feed(frames.encode(Error(ErrorCode.BACKOFF)))
    start = trio.current_time()
    for step in range(1, 4):
        buffer.write("duty_cycle", step / 8)
        expected = DevWrite(1, struct.pack("<f", step / 8))
        await board.receives(functools.partial(operator.eq, expected))
    assert trio.current_time() - start >= 2 * 0.08


async def test_interval_out_of_range_is_refused(robot: Robot) -> None:
    async with raw_device(robot, "limit-switch") as (_, buffer):
        client = robot.manager.devices[int(buffer.uid)]
        for interval in (65.536, -0.001, 1e9):
            with pytest.raises(OverflowError, match="65535"):
                await client.subscribe(None, interval)
