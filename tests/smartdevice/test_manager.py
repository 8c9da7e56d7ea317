"""Devices connect, are commanded and disconnect, and nothing moves without a lease."""

import errno
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from structlog.testing import capture_logs
from support.device_robot import Board, Robot, make_board, open_robot
from support.stranger import UID, require_another_user, run_stranger

from rt.access.peer import ANOTHER_USER, CROWDED, ENDED, Peer, PeerTable
from rt.buffer import segment
from rt.buffer.arena import CAPACITY
from rt.emulator.lines import connect_emulated
from rt.errors import (
    BufferBusyError,
    DeviceBufferError,
    DeviceError,
    InstanceBusyError,
    RemoteProtocolError,
)
from rt.link.link import StreamLink
from rt.protocol import frames
from rt.protocol.message import (
    DevData,
    DevDisable,
    DevRead,
    DevWrite,
    Error,
    ErrorCode,
    HbReq,
    HbRes,
    Message,
    Ping,
    SubReq,
)


def writes_duty(value: float) -> Callable[[Message], bool]:
    return lambda message: message == DevWrite(1, struct.pack("<f", value))


async def until(condition: Callable[[], Any]) -> None:
    """Poll a condition that no event announces, such as another task's next step."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)


async def plugged(robot: Robot, name: str = "polar-bear", **options: Any) -> Board:
    board = make_board(name, **options)
    await robot.plug(board, f"line of {name}")
    await until(lambda: board.device.uid in robot.manager.devices)
    await board.receives(SubReq)
    return board


async def test_device_is_discovered_subscribed_and_read(robot: Robot) -> None:
    board = await plugged(robot, "limit-switch", values={"switch1": True})
    buffer = robot.buffer_of(board)
    assert robot.manager.list_uids() == [str(board.device.uid)]
    assert int(buffer.uid) == board.device.uid
    await until(lambda: buffer.valid and buffer.get("switch1"))
    assert buffer.subscription == ["switch0", "switch1", "switch2"]
    assert buffer.interval == 0.04
    assert buffer.counters.connects == 1
    assert [type(each) for each in board.received[:3]] == [DevDisable, Ping, DevDisable]


async def test_newest_write_under_lease_reaches_device(robot: Robot) -> None:
    board = await plugged(robot)
    buffer = robot.buffer_of(board)
    robot.nursery.start_soon(robot.keep_lease)
    await until(lambda: robot.manager.guard.is_open)
    buffer.write("duty_cycle", 0.25)
    await board.receives(writes_duty(0.25))
    for step in range(10):
        buffer.write("duty_cycle", step / 16)
    await board.receives(writes_duty(9 / 16))
    await until(lambda: buffer.get("duty_cycle") == 9 / 16)
    assert len([each for each in board.received if isinstance(each, DevWrite)]) == 2
    assert buffer.counters.writes_sent == 2


async def test_writes_keep_the_write_interval(robot: Robot) -> None:
    board = await plugged(robot)
    buffer = robot.buffer_of(board)
    robot.nursery.start_soon(robot.keep_lease)
    await until(lambda: robot.manager.guard.is_open)
    start = trio.current_time()
    for step in range(1, 6):
        buffer.write("duty_cycle", step / 8)
        await board.receives(writes_duty(step / 8))
    assert trio.current_time() - start >= 4 * 0.04


async def test_backoff_halves_the_write_rate(robot: Robot) -> None:
    board = await plugged(robot)
    client = robot.manager.devices[board.device.uid]
    client._receive_path._handle(Error(ErrorCode.BACKOFF))
    buffer = robot.buffer_of(board)
    robot.nursery.start_soon(robot.keep_lease)
    await until(lambda: robot.manager.guard.is_open)
    start = trio.current_time()
    for step in range(1, 4):
        buffer.write("duty_cycle", step / 8)
        await board.receives(writes_duty(step / 8))
    assert trio.current_time() - start >= 2 * 0.08


async def test_write_without_lease_is_dropped_and_logged_once(robot: Robot) -> None:
    board = await plugged(robot)
    buffer = robot.buffer_of(board)
    with capture_logs() as events:
        for _ in range(5):
            buffer.write("duty_cycle", 1.0)
            await until(lambda: not buffer.dirty)
    assert buffer.counters.writes_dropped == 5
    assert not [each for each in board.received if isinstance(each, DevWrite)]
    (dropped,) = [event for event in events if "dropped" in event["event"]]
    assert {key: dropped[key] for key in ("device", "name", "writes")} == {
        "device": "polar-bear",
        "name": "left",
        "writes": 1,
    }


async def test_released_lease_disables_and_drops_pending_writes(robot: Robot) -> None:
    board = await plugged(robot)
    buffer = robot.buffer_of(board)
    robot.hold_lease()
    await until(lambda: robot.manager.guard.is_open)
    buffer.write("duty_cycle", 0.5)
    await board.receives(writes_duty(0.5))
    before = len(board.received)
    buffer.write("duty_cycle", 0.75)  # waits for the write interval
    robot.drop_lease()
    await until(lambda: board.device.disabled)
    await trio.sleep(0.1)
    after = [each for each in board.received[before:] if not isinstance(each, HbRes)]
    assert after == [DevDisable()]
    assert board.device.values["duty_cycle"] == 0


async def test_unrenewed_lease_disables_device(robot: Robot) -> None:
    board = await plugged(robot)
    buffer = robot.buffer_of(board)
    # From the start: on a busy machine the lease may expire before the board is checked.
    with capture_logs() as events:
        robot.hold_lease()
        buffer.write("duty_cycle", 0.5)
        await board.receives(writes_duty(0.5))
        await until(lambda: board.device.disabled)
    assert any("not renewed" in event.get("reason", "") for event in events)
    robot.nursery.start_soon(robot.keep_lease)  # and back again
    await until(lambda: robot.manager.guard.is_open)
    buffer.write("duty_cycle", 0.25)
    await board.receives(writes_duty(0.25))


async def test_returning_device_gets_no_old_commands(robot: Robot) -> None:
    board = make_board("polar-bear")
    robot.nursery.start_soon(robot.keep_lease)
    unplug = await robot.plug(board)
    await until(lambda: board.device.uid in robot.manager.devices)
    buffer = robot.buffer_of(board)
    buffer.write("duty_cycle", 0.5)
    await board.receives(writes_duty(0.5))
    buffer.write("duty_cycle", 0.75)
    await unplug()
    await until(lambda: not robot.manager.devices)
    assert not buffer.valid
    with pytest.raises(DeviceBufferError):
        buffer.write("duty_cycle", 1.0)
    again = make_board("polar-bear")
    await robot.plug(again)
    await again.receives(SubReq)
    await trio.sleep(0.1)
    assert not [each for each in again.received if isinstance(each, DevWrite)]
    assert robot.buffer_of(again) is buffer
    assert buffer.counters.connects == 2


async def test_garbage_is_counted_and_ignored(robot: Robot) -> None:
    board = make_board("limit-switch")
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(os.urandom(500).replace(b"\0", b"\1") + b"\0")  # before it is discovered
    robot.nursery.start_soon(robot.manager._run_and_log, StreamLink(ours, "line"))
    await trio.testing.wait_all_tasks_blocked()
    await theirs.send_all(frames.encode(board.device.handle(Ping(), 0)[0]))
    await until(lambda: board.device.uid in robot.manager.devices)
    garbage = [
        b"\x01" * 300 + b"\0",
        b"\x55" * 2**20 + b"\0",
        b"\x02\x10\x02\x11\0",
        frames.encode(DevData(0b1, b"\0\0\0")),
        frames.encode(DevData(0xFFFF, b"")),
        frames.encode(Ping()),
    ]
    for chunk in garbage:
        await theirs.send_all(chunk)
    await theirs.send_all(frames.encode(DevData(0b100, b"\1")))
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.get("switch2"))
    assert buffer.counters.bad_frames == 1 + len(garbage)


async def test_heartbeat_requests_are_answered_before_discovery(robot: Robot) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    robot.nursery.start_soon(robot.manager._run_and_log, StreamLink(ours, "line"))
    await theirs.send_all(frames.encode(HbReq(42)))
    reader = frames.FrameReader()
    with trio.fail_after(30):
        while HbRes(42) not in reader.feed(bytes(await theirs.receive_some())):
            pass


async def test_device_may_return_while_its_dead_line_is_open(robot: Robot) -> None:
    board = make_board("limit-switch")
    ours, theirs = trio.testing.memory_stream_pair()
    robot.nursery.start_soon(robot.manager._run_and_log, StreamLink(ours, "dead line"))
    await theirs.send_all(frames.encode(board.device.handle(Ping(), 0)[0]))
    await until(lambda: board.device.uid in robot.manager.devices)
    await robot.plug(board, "new line")
    await until(
        lambda: (
            (client := robot.manager.devices.get(board.device.uid))
            and client.link.name == "new line"
        )
    )
    await until(lambda: robot.buffer_of(board).valid)


async def test_remote_calls_reach_devices_by_uid_and_name(robot: Robot) -> None:
    board = await plugged(robot)
    manager, uid = robot.manager, str(board.device.uid)
    await manager.ping()
    await manager.ping("left")
    await manager.disable([uid])
    assert len(await board.receives(DevDisable, 3)) == 3
    assert 0 < (await manager.heartbeat(uid) or 0) < 1
    assert await manager.heartbeat(uid, 200, block=False) is None
    await board.receives(lambda message: message == HbReq(200))
    await manager.subscribe("left", ["enc_pos"], 0.1)
    assert robot.buffer_of(board).subscription == ["enc_pos"]
    assert robot.buffer_of(board).interval == 0.1
    manager.read(uid, ["enc_vel"])
    await board.receives(lambda message: message == DevRead(1 << 11))
    await manager.unsubscribe()
    assert robot.buffer_of(board).subscription == []


async def test_ports_lists_lines_with_and_without_device(robot: Robot) -> None:
    board = await plugged(robot)
    ours, _theirs = trio.testing.memory_stream_pair()
    robot.nursery.start_soon(robot.manager.run_device, StreamLink(ours, "silent line"))
    await until(lambda: len(robot.manager.ports()) == 2)
    assert robot.manager.ports() == {
        "line of polar-bear": str(board.device.uid),
        "silent line": None,
    }


async def test_invalid_calls_are_explained(robot: Robot) -> None:
    await plugged(robot)
    manager = robot.manager
    with pytest.raises(DeviceError, match="not connected; connected: left"):
        await manager.ping("5")
    with pytest.raises(DeviceError, match="did you mean left"):
        await manager.ping("lefd")
    with pytest.raises(DeviceError, match=r"interval must be 0 to 65.535 s, not 99"):
        await manager.subscribe("left", None, 99)
    with pytest.raises(OverflowError):
        await manager.heartbeat("left", 256)
    with pytest.raises(DeviceError, match="duty_cycle"):
        await manager.subscribe("left", ["duty_cicle"])
    with pytest.raises(DeviceError, match="not readable"):
        manager.read("left", ["pid_pos_kp"])


async def test_device_service_has_all_its_methods(robot: Robot) -> None:
    expected = {
        "list_uids",
        "ping",
        "disable",
        "subscribe",
        "unsubscribe",
        "read",
        "heartbeat",
        "ports",
        "describe",
    }
    assert set(robot.manager.routes()) == expected


async def test_busy_buffer_delays_but_loses_no_command(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = await plugged(robot)
    buffer = robot.buffer_of(board)
    robot.nursery.start_soon(robot.keep_lease)
    await until(lambda: robot.manager.guard.is_open)

    def busy(*_args: object) -> None:
        raise BufferBusyError("held")

    with monkeypatch.context() as patched:
        patched.setattr(buffer, "take_dev_rw", busy)
        patched.setattr(buffer, "update", busy)
        buffer.write("duty_cycle", 0.5)
        await until(lambda: buffer.counters.updates_dropped)
    await board.receives(writes_duty(0.5))


async def test_virtual_device_connects_over_tcp(robot: Robot) -> None:
    (listener,) = await robot.nursery.start(robot.manager.open_virtual_devices, "tcp://localhost:0")
    port = listener.socket.getsockname()[1]
    taken = pytest.RaisesExc(InstanceBusyError, match=os.strerror(errno.EADDRINUSE))
    with pytest.RaisesGroup(taken, flatten_subgroups=True, allow_unwrapped=True):
        await robot.manager.open_virtual_devices(f"tcp://127.0.0.1:{port}")
    board = make_board("limit-switch")
    robot.nursery.start_soon(connect_emulated, board.device, "127.0.0.1", port)
    await until(lambda: board.device.uid in robot.manager.devices)
    assert robot.manager.devices[board.device.uid].link.name.startswith("tcp://127.0.0.1:")


async def test_virtual_device_is_refused_while_peer_lookups_are_slow(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: list[object] = []

    def look_up(table: PeerTable, accepted: trio.socket.SocketType) -> Peer:
        lookups.append(accepted)
        table.budget._left = -1e9
        return Peer("127.0.0.1", None, trusted=False)

    monkeypatch.setattr(PeerTable, "peer_of", look_up)
    (listener,) = await robot.nursery.start(robot.manager.open_virtual_devices, "tcp://127.0.0.1:0")
    for _ in range(3):
        async with await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
            assert await stream.receive_some() == b""
    assert len(lookups) == 1
    assert robot.manager._refusals.counts == {ENDED: 1, CROWDED: 2}


CLAIM = """
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as line:
    line.settimeout(30)
    print(line.recv(100))
"""


async def test_virtual_device_of_another_user_is_refused(robot: Robot) -> None:
    require_another_user()
    (listener,) = await robot.nursery.start(robot.manager.open_virtual_devices, "tcp://127.0.0.1:0")
    port = listener.socket.getsockname()[1]
    with capture_logs() as logs:
        robot.manager._refusals._log = structlog.get_logger()
        for _ in range(2):
            # Not even a PING is sent: any program that answered it would take the UID of a motor.
            assert await trio.to_thread.run_sync(run_stranger, CLAIM, str(port)) == "b''"
    assert next(entry["uid"] for entry in logs if entry["event"] == "virtual device refused") == UID
    assert robot.manager._refusals.counts == {ANOTHER_USER: 2}
    board = make_board("limit-switch")
    robot.nursery.start_soon(connect_emulated, board.device, "127.0.0.1", port)
    await until(lambda: board.device.uid in robot.manager.devices)


async def test_disable_all_disables_every_device_for_good(robot: Robot) -> None:
    boards = [await plugged(robot, number=number) for number in range(3)]
    robot.nursery.start_soon(robot.keep_lease)
    await until(lambda: robot.manager.guard.is_open)
    for board in boards:
        robot.buffer_of(board).write("duty_cycle", 0.5)
        await board.receives(writes_duty(0.5))
    await robot.manager.disable_all()
    await until(lambda: all(board.device.disabled for board in boards))
    robot.hold_lease()
    assert not robot.manager.guard.is_open  # for good


def muted(board: Board) -> Board:
    """Return a board that still moves, but answers neither pings nor heartbeat requests."""
    answer = board.device.handle

    def handle(item: Message | RemoteProtocolError, now: float) -> list[Message]:
        answers = answer(item, now)
        return [] if isinstance(item, HbReq | Ping) else answers

    board.device.handle = handle  # type: ignore[method-assign]
    return board


async def test_device_that_loses_its_uid_is_disabled(robot: Robot) -> None:
    first = await plugged(robot)
    robot.hold_lease()
    robot.nursery.start_soon(robot.keep_lease)
    robot.buffer_of(first).write("duty_cycle", 0.5)
    await first.receives(DevWrite)
    muted(first)
    first.received.clear()
    with capture_logs() as events:
        await robot.plug(make_board("polar-bear"), "claimant")
        await first.receives(DevDisable)
        await until(lambda: any(event.get("log_level") == "warning" for event in events))
    assert first.device.values["duty_cycle"] == 0.0


async def test_many_claimants_do_not_evict_live_device(robot: Robot) -> None:
    first = await plugged(robot)
    client = robot.manager.devices[first.device.uid]
    with capture_logs() as events:
        for number in range(100):
            await robot.plug(make_board("polar-bear"), f"claimant {number}")
        await until(lambda: len(robot.manager._clients) == 1)
    assert robot.manager.devices[first.device.uid] is client
    assert any("refused" in event["event"] for event in events)


async def test_full_shared_memory_refuses_only_new_device(robot: Robot, prefix: str) -> None:
    first = await plugged(robot)
    for number in range(CAPACITY - len(list(segment.names(prefix)))):
        segment.create(f"{prefix}{number}", 8, lambda _memory: None)
    with capture_logs() as events:
        await robot.plug(make_board("limit-switch"), "second line")
        await until(lambda: any("no room for the buffer" in event["event"] for event in events))
    assert list(robot.manager.devices) == [first.device.uid]


@pytest.mark.parametrize(
    "name", ["limit-switch@99999999999999999999999999", "polar-bear@0", "limit-switch@7"]
)
async def test_foreign_segment_name_does_not_end_device_process(prefix: str, name: str) -> None:
    segment.create(f"{prefix}{name}", 64, lambda _memory: None)
    async with open_robot(prefix) as robot:
        assert not any(each.valid for each in robot.buffers.devices().values())
