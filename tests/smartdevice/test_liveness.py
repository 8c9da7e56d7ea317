"""A silent device is lost, and found again on its line; one that sends anything is alive."""

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.device_robot import Board, Robot, make_board
from trio.testing import MockClock

from rt.errors import DeviceBufferError, DeviceError, RemoteProtocolError
from rt.link.link import StreamLink
from rt.protocol.message import DevDisable, DevWrite, HbReq, HbRes, Message, Ping, SubReq
from rt.smartdevice import liveness
from rt.smartdevice.client import SmartDeviceClient
from rt.smartdevice.liveness import ASKED_AFTER, LOST_AFTER, Verdict, judge

SILENT = "device does not respond"


class Freezer:
    """Freezes a board, or lets it ignore some messages, until it thaws."""

    def __init__(self, board: Board) -> None:
        self._device = board.device
        self._handle, self._due = board.device.handle, board.device.due
        self.frozen = False
        self.ignored: tuple[type[Message], ...] = ()
        board.device.handle = self._answer  # type: ignore[method-assign]
        board.device.due = self._report  # type: ignore[method-assign]

    def _answer(self, item: Message | RemoteProtocolError, now: float) -> list[Message]:
        answers = self._handle(item, now)
        return [] if self.frozen or isinstance(item, self.ignored) else answers

    def _report(self, now: float) -> list[Message]:
        messages = self._due(now)
        return [] if self.frozen else messages


async def plugged(robot: Robot, board: Board) -> SmartDeviceClient:
    await robot.plug(board)
    await board.receives(SubReq)
    await trio.sleep(0.1)
    return robot.manager.devices[board.device.uid]


def logged(events: list[Any], what: str) -> list[Any]:
    return [event for event in events if what in event["event"]]


async def test_silent_device_is_lost_once_and_returns_without_old_commands(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("polar-bear")
    client = await plugged(robot, board)
    freezer = Freezer(board)
    buffer = robot.buffer_of(board)
    with capture_logs() as events:
        freezer.frozen = True
        board.received.clear()
        start = trio.current_time()
        await client.lost.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not buffer.valid
        assert LOST_AFTER - 0.1 <= trio.current_time() - start <= LOST_AFTER + 0.5
        await board.receives(DevDisable)
        assert robot.manager.list_uids() == []
        with pytest.raises(DeviceBufferError, match="not connected"):
            buffer.write("duty_cycle", 1.0)
        await trio.sleep(3)
        assert len(logged(events, SILENT)) == 1
        (event,) = logged(events, SILENT)
        assert (event["port"], event["uid"]) == ("line", str(board.device.uid))
        assert "power" in event["remedy"]
        board.received.clear()
        freezer.frozen = False
        await board.receives(SubReq)
        await trio.sleep(0.1)
        assert isinstance(
            next(message for message in board.received if not isinstance(message, Ping)), DevDisable
        )
        assert not [message for message in board.received if isinstance(message, DevWrite)]
        assert buffer.valid
        assert robot.buffer_of(board) is buffer
        assert robot.manager.list_uids() == [str(board.device.uid)]
        assert len(logged(events, "answers again")) == 1


async def test_pending_write_is_discarded_when_device_is_lost(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("polar-bear")
    client = await plugged(robot, board)
    freezer = Freezer(board)
    buffer = robot.buffer_of(board)
    freezer.frozen = True
    await trio.sleep(LOST_AFTER - 0.3)
    with buffer._lock:  # as a write that was not collected yet
        buffer._header.pending = 1
    await client.lost.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert not buffer.dirty
    freezer.frozen = False
    await trio.sleep(1)
    assert buffer.valid
    assert not [message for message in board.received if isinstance(message, DevWrite)]


async def test_requested_subscription_is_restored_after_loss(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("polar-bear")
    await plugged(robot, board)
    freezer = Freezer(board)
    await robot.manager.subscribe(str(board.device.uid), ["enc_pos"], 0.1)
    freezer.frozen = True
    await trio.sleep(4)
    board.device.reset()  # it has lost its power
    freezer.frozen = False
    await trio.sleep(1)
    assert robot.buffer_of(board).subscription == ["enc_pos"]
    assert robot.buffer_of(board).interval == 0.1


async def test_idle_device_is_probed_about_once_a_second(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    await plugged(robot, board)
    await robot.manager.unsubscribe()
    board.received.clear()
    await trio.sleep(20)
    probes = [message for message in board.received if isinstance(message, HbReq)]
    assert 15 <= len(probes) <= 21
    assert robot.manager.list_uids() == [str(board.device.uid)]
    assert robot.buffer_of(board).counters.connects == 1


async def test_reporting_device_is_not_probed(robot: Robot, autojump_clock: MockClock) -> None:
    board = make_board("limit-switch")
    await plugged(robot, board)
    freezer = Freezer(board)
    freezer.ignored = (HbReq,)
    board.received.clear()
    await trio.sleep(20)
    assert not [message for message in board.received if isinstance(message, HbReq)]
    assert robot.manager.list_uids() == [str(board.device.uid)]


async def test_one_lost_answer_does_not_lose_the_device(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    await plugged(robot, board)
    await robot.manager.unsubscribe()
    freezer = Freezer(board)
    board.received.clear()
    for _ in range(20):
        freezer.frozen = True
        await trio.sleep(0.6)
        freezer.frozen = False
        await trio.sleep(0.55)
    assert (
        len([message for message in board.received if isinstance(message, HbReq)]) > 20
    )  # some were probed again
    assert robot.buffer_of(board).counters.connects == 1


async def test_device_that_never_returns_ends_its_line(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    client = await plugged(robot, board)
    Freezer(board).frozen = True
    with capture_logs() as events, trio.fail_after(30):
        await client.ended.wait()
    assert len(logged(events, SILENT)) == 1
    await trio.testing.wait_all_tasks_blocked()
    assert not robot.manager._clients


async def test_replaced_device_on_same_line_is_discovered(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch", values={"switch0": True})
    client = await plugged(robot, board)
    first, second = board.device.uid, board.device.uid + 1
    freezer = Freezer(board)
    freezer.frozen = True
    await client.lost.wait()
    await trio.sleep(1)
    board.device.uid = second
    with capture_logs() as events:
        freezer.frozen = False
        await board.receives(SubReq, 2)
        await trio.sleep(0.1)
    assert robot.manager.list_uids() == [str(second)]
    assert robot.buffer_of(board).valid
    assert robot.buffer_of(board).get("switch0")
    assert not robot.buffers.get_or_open(first).valid
    assert logged(events, "device connected")


async def test_unnoticed_replacement_does_not_report_for_first_board(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    client = await plugged(robot, board)
    first = robot.buffer_of(board)
    board.device.uid += 1
    await client.ping()  # another UID answers: the first device is lost and the other one is found
    await board.receives(SubReq, 2)
    await trio.sleep(0.1)
    assert robot.manager.list_uids() == [str(board.device.uid)]
    assert int(first.uid) == board.device.uid - 1
    assert not first.valid


async def test_lost_device_may_return_on_another_line(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    client = await plugged(robot, board)
    Freezer(board).frozen = True
    await client.lost.wait()
    again = make_board("limit-switch")
    await robot.plug(again, "another line")
    await again.receives(SubReq)
    await client.ended.wait()  # the end of the first line does not affect the second
    assert robot.buffer_of(again).valid
    assert robot.manager.list_uids() == [str(again.device.uid)]


async def test_probe_does_not_interfere_with_heartbeat(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    client = await plugged(robot, board)
    freezer = Freezer(board)
    freezer.ignored = (HbReq,)
    board.received.clear()
    async with trio.open_nursery() as nursery:

        async def heartbeat() -> None:
            with pytest.raises(DeviceError):
                await client.heartbeat(255, within=0.5)

        nursery.start_soon(heartbeat)
        await board.receives(HbReq)
        client.send_probe()
        await board.receives(HbReq, 2)
        client._receive_path._handle(HbRes(254))
    assert [message.id for message in board.received if isinstance(message, HbReq)] == [255, 254]
    numbers = {client.send_heartbeat() for _ in range(60)}
    assert not numbers & {254, 255}


async def test_probe_of_full_line_does_not_raise(robot: Robot, autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    unblocked = trio.Event()
    ours.send_stream.send_all_hook = unblocked.wait
    client = SmartDeviceClient(StreamLink(ours, "line"), robot.manager.guard)
    robot.nursery.start_soon(client.run)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(200):
        client.send_probe()
    with pytest.raises(DeviceError, match="too many requests"):
        client.send_heartbeat()
    with pytest.raises(DeviceError, match="no answer to a ping"):
        await client.discover(robot.buffers)
    await theirs.aclose()
    client.mark_lost()
    unblocked.set()
    await client.drop()


class Silent:
    """A device that sends nothing, and what is done about it."""

    def __init__(self) -> None:
        self.last_received = trio.current_time()
        self.probes = 0
        self.lost_at: float | None = None

    def send_probe(self) -> None:
        self.probes += 1

    def ignore_gap(self, seconds: float) -> None:
        self.last_received += seconds

    def check_reports(self, now: float) -> None:
        assert now == trio.current_time()

    def mark_lost(self) -> None:
        self.lost_at = self.lost_at or trio.current_time()


async def test_pause_of_process_does_not_count_as_silence(mock_clock: MockClock) -> None:
    device = Silent()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(liveness.watch, lambda: [device])
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(60)
        await trio.testing.wait_all_tasks_blocked()
        assert (device.probes, device.lost_at) == (0, None)
        for _ in range(8):
            mock_clock.jump(0.25)
            await trio.testing.wait_all_tasks_blocked()
        assert device.probes == 4
        assert device.lost_at is not None
        nursery.cancel_scope.cancel()


@given(st.floats(0, 100), st.floats(0, 100))
def test_longer_silence_is_never_better(one: float, other: float) -> None:
    order = [Verdict.ALIVE, Verdict.ASK, Verdict.LOST]
    shorter, longer = sorted((one, other))
    assert order.index(judge(shorter)) <= order.index(judge(longer))
    assert (judge(one) is Verdict.ALIVE) == (one < ASKED_AFTER)
    assert (judge(one) is Verdict.LOST) == (one >= LOST_AFTER)


async def test_checks_are_rare_without_devices(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    checks = 0

    def count() -> None:
        nonlocal checks
        checks += 1

    nursery.start_soon(liveness.watch, list, count)
    await trio.sleep(10)
    assert checks <= 10 / liveness.EMPTY_INTERVAL + 1
