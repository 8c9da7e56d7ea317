"""A device that stops reporting is pinged, subscribed again, and then counts as disconnected."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.device_robot import Board, Robot, make_board
from trio.testing import MockClock

from rt.errors import DeviceBufferError
from rt.protocol.message import DevData, DevDisable, DevWrite, Message, SubReq, SubRes
from rt.smartdevice.reports import ASK_AFTER, LOST_AFTER, RENEW_AFTER, Reports, Verdict, judge

INTERVAL = 0.25


class Censor:
    """Removes parameters from what a board reports on its own."""

    def __init__(self, board: Board) -> None:
        self._due = board.device.due
        self._packing = board.device.peripheral.packing
        self.hidden = 0
        board.device.due = self._report  # type: ignore[method-assign]

    def _report(self, now: float) -> list[Message]:
        messages: list[Message] = []
        for message in self._due(now):
            if not isinstance(message, DevData):
                messages.append(message)
            elif remaining := message.params & ~self.hidden:
                values = self._packing.unpack(message.params, message.data)
                messages.append(DevData(remaining, self._packing.pack(remaining, values)))
        return messages


async def connected(robot: Robot, name: str, **values: Any) -> Board:
    board = make_board(name, values=values)
    await robot.plug(board)
    await trio.sleep(2)
    assert robot.manager.list_uids() == [str(board.device.uid)]
    board.received.clear()
    return board


def send_next(board: Board, *messages: Message) -> None:
    """Let a board send messages with its next report."""
    due = board.device.due

    def report(now: float) -> list[Message]:
        board.device.due = due  # type: ignore[method-assign]
        return [*messages, *due(now)]

    board.device.due = report  # type: ignore[method-assign]


def logged(events: list[Any], what: str) -> list[Any]:
    return [event for event in events if what in event["event"]]


async def test_forgotten_subscription_is_renewed_within_two_seconds(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = await connected(robot, "potentiometer", pot0=0.25)
    buffer = robot.buffer_of(board)
    with capture_logs() as events:
        board.device.reset()
        board.device.set("pot0", 0.75)
        start = trio.current_time()
        await board.receives(SubReq)
        assert trio.current_time() - start <= 2
        await trio.sleep(0.1)
    assert buffer.get("pot0") == 0.75
    assert buffer.valid
    (event,) = logged(events, "device restarted")
    assert (event["port"], event["uid"], event["log_level"]) == (
        "line",
        str(board.device.uid),
        "warning",
    )


async def test_restarted_motor_is_disabled_and_not_moved_again(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = await connected(robot, "polar-bear")
    robot.nursery.start_soon(robot.keep_lease)
    await trio.sleep(0.1)
    robot.buffer_of(board).write("pid_pos_kp", 2.0)
    robot.buffer_of(board).write("duty_cycle", 0.5)
    await board.receives(DevWrite)
    board.received.clear()
    with capture_logs() as events:
        board.device.reset()
        await board.receives(SubReq)
        await trio.sleep(1)
    assert [message for message in board.received if isinstance(message, DevDisable)]
    assert not [message for message in board.received if isinstance(message, DevWrite)]
    assert robot.buffer_of(board).valid
    (event,) = logged(events, "device restarted")
    assert "gains" in event["remedy"]


async def test_reported_loss_of_subscription_is_renewed_at_once(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = await connected(robot, "limit-switch")
    send_next(board, SubRes(0, 0, board.device.uid))
    start = trio.current_time()
    await board.receives(SubReq)
    assert trio.current_time() - start <= 2 * INTERVAL
    await trio.sleep(0.5)
    assert robot.buffer_of(board).valid


@pytest.mark.parametrize(("params", "interval"), [(0b001, 40), (0b111, 250)])
async def test_changed_subscription_is_renewed(
    robot: Robot, autojump_clock: MockClock, params: int, interval: int
) -> None:
    board = await connected(robot, "limit-switch")
    with capture_logs() as events:
        board.device._subscribe(params, interval, trio.current_time())
        send_next(board, SubRes(params, interval, board.device.uid))
        start = trio.current_time()
        await board.receives(SubReq)
        assert trio.current_time() - start <= 0.25 + 2 * INTERVAL
        await trio.sleep(3)
    assert len(logged(events, "device changed its subscription")) == 1
    assert robot.buffer_of(board).interval == 0.04
    assert robot.buffer_of(board).subscription == ["switch0", "switch1", "switch2"]
    assert robot.manager.list_uids() == [str(board.device.uid)]
    assert not logged(events, "does not report")


async def test_board_counts_as_disconnected_until_it_reports(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = await connected(robot, "limit-switch", switch0=True)
    censor = Censor(board)
    buffer = robot.buffer_of(board)
    with capture_logs() as events:
        censor.hidden = 0xFFFF
        start = trio.current_time()
        await board.receives(SubReq)
        assert trio.current_time() - start <= 2
        await board.receives(DevDisable)
        assert trio.current_time() - start <= LOST_AFTER + 2 * INTERVAL
        assert not buffer.valid
        with pytest.raises(DeviceBufferError):
            buffer.get("switch0")
        assert robot.manager.list_uids() == []
        await trio.sleep(60)
        assert not buffer.valid
        assert robot.manager.list_uids() == []
        censor.hidden = 0
        await trio.sleep(6)
        assert buffer.get("switch0")
        assert robot.manager.list_uids() == [str(board.device.uid)]
    (event,) = logged(events, "does not report its values")
    assert event["params"] == ["switch0", "switch1", "switch2"]
    assert len(logged(events, "answers again")) == 1


async def test_one_missing_parameter_is_noticed(robot: Robot, autojump_clock: MockClock) -> None:
    board = await connected(robot, "polar-bear")
    censor = Censor(board)
    censor.hidden = 1 << board.device.peripheral.param("enc_pos").id
    with capture_logs() as events:
        await trio.sleep(4)
        assert robot.manager.list_uids() == []
        (event,) = logged(events, "does not report its values")
        assert event["params"] == ["enc_pos"]
        censor.hidden = 0
        await trio.sleep(6)
    assert robot.manager.list_uids() == [str(board.device.uid)]


async def test_successful_renewal_is_logged_once(robot: Robot, autojump_clock: MockClock) -> None:
    board = await connected(robot, "limit-switch")
    censor = Censor(board)
    with capture_logs() as events:
        censor.hidden = 0xFFFF
        await trio.sleep(2.4)
        censor.hidden = 0
        await trio.sleep(5)
    (event,) = logged(events, "reports again")
    assert 2 <= event["silence"] <= 2.5
    assert not logged(events, "does not report")


async def test_board_without_subscription_answer_is_disconnected(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    handle = board.device.handle

    def ignore_subscriptions(item: Any, now: float) -> list[Message]:
        return [] if isinstance(item, SubReq) else handle(item, now)

    board.device.handle = ignore_subscriptions  # type: ignore[method-assign]
    with capture_logs() as events:
        await robot.plug(board)
        await trio.sleep(20)
        assert robot.manager.list_uids() == []
        board.device.handle = handle  # type: ignore[method-assign]
        await trio.sleep(10)
    assert robot.manager.list_uids() == [str(board.device.uid)]
    assert len(logged(events, "does not report its values")) == 1


async def test_dead_board_that_did_not_report_ends_its_line(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = await connected(robot, "limit-switch")
    client = robot.manager.devices[board.device.uid]
    Censor(board).hidden = 0xFFFF
    await trio.sleep(10)
    board.device.handle = lambda item, now: []  # type: ignore[method-assign]  # noqa: ARG005
    with trio.fail_after(60):
        await client.ended.wait()


async def test_replaced_board_that_did_not_report_is_discovered(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = await connected(robot, "limit-switch")
    censor = Censor(board)
    censor.hidden = 0xFFFF
    await trio.sleep(10)
    board.device.uid += 1
    censor.hidden = 0
    await trio.sleep(10)
    assert robot.manager.list_uids() == [str(board.device.uid)]


@pytest.mark.parametrize("name", ["limit-switch", "servo-motor", "team-flag", "polar-bear", "rfid"])
async def test_healthy_board_causes_no_log_event(
    robot: Robot, autojump_clock: MockClock, name: str
) -> None:
    board = await connected(robot, name)
    with capture_logs() as events:
        await trio.sleep(12)
        await robot.manager.subscribe(str(board.device.uid), None, 0.25)
        await trio.sleep(12)
        await robot.manager.subscribe(str(board.device.uid), [next(iter(board.device.values))], 0.1)
        await trio.sleep(12)
        await robot.manager.unsubscribe()
        await trio.sleep(12)
        await robot.manager.subscribe(str(board.device.uid))
        await trio.sleep(12)
    assert events == []
    assert len([message for message in board.received if isinstance(message, SubReq)]) == 4


async def test_reports_slower_than_granted_are_accepted(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = await connected(robot, "limit-switch")
    censor = Censor(board)
    with capture_logs() as events:
        for _ in range(12):
            censor.hidden = 0xFFFF
            await trio.sleep(1.6)
            censor.hidden = 0
            await trio.sleep(0.06)
    assert events == []
    assert robot.buffer_of(board).counters.connects == 1


async def test_lost_subscription_frame_is_not_a_restart(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = await connected(robot, "limit-switch")
    handle = board.device.handle
    lost: list[Message] = []

    def ignore_once(item: Any, now: float) -> list[Message]:
        answers = handle(item, now)
        if isinstance(item, SubReq) and not lost:
            lost.append(item)
            return []
        return answers

    board.device.handle = ignore_once  # type: ignore[method-assign]
    with capture_logs() as events:
        robot.nursery.start_soon(subscribe_without_answer, robot, str(board.device.uid))
        await trio.sleep(10)
    assert lost
    assert robot.buffer_of(board).counters.connects == 1
    assert robot.buffer_of(board).subscription == ["switch1"]
    assert not logged(events, "restarted")


async def subscribe_without_answer(robot: Robot, uid: str) -> None:
    with pytest.raises(Exception, match="no answer"):
        await robot.manager.subscribe(uid, ["switch1"], 0.1)


async def test_changing_uid_is_handled_at_bounded_rate(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = await connected(robot, "limit-switch")
    before = len(robot.buffers)
    due = board.device.due

    def change(now: float) -> list[Message]:
        board.device.uid += 1
        return [SubRes(0b111, 40, board.device.uid), *due(now)]

    board.device.due = change  # type: ignore[method-assign]
    with capture_logs() as events:
        await trio.sleep(60)
    assert len(events) <= 60
    assert logged(events, "another device answers")
    assert len(robot.buffers) - before <= 40


@pytest.mark.parametrize("restart", [lambda board: board.device.reset()])
async def test_repeated_restarts_are_logged_at_bounded_rate(
    robot: Robot, autojump_clock: MockClock, restart: Callable[[Board], None]
) -> None:
    board = await connected(robot, "limit-switch")
    with capture_logs() as events:
        for _ in range(300):
            restart(board)
            send_next(board, SubRes(0, 0, board.device.uid))
            await trio.sleep(0.1)
    assert len(events) <= 45
    await trio.sleep(20)
    assert robot.buffer_of(board).valid


async def test_replaced_idle_motor_is_noticed(robot: Robot, autojump_clock: MockClock) -> None:
    board = await connected(robot, "polar-bear")
    await robot.manager.unsubscribe()
    first = robot.buffer_of(board)
    board.device.uid += 1
    await trio.sleep(7)
    assert not first.valid
    assert robot.manager.list_uids() == [str(board.device.uid)]


@given(st.floats(0, 100), st.floats(0, 100))
def test_longer_silence_is_never_better(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    assert judge(shorter) <= judge(longer)
    assert ASK_AFTER < RENEW_AFTER <= 2 - INTERVAL < LOST_AFTER


@given(
    params=st.integers(1, 0xFFFF),
    interval=st.floats(0.001, 65),
    steps=st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 0xFFFF)), max_size=40),
)
def test_verdict_follows_the_longest_silence(
    params: int, interval: float, steps: list[tuple[float, int]]
) -> None:
    reports = Reports()
    counts = [5] * 16
    now = 100.0
    reports.expect(params, interval, counts, now)
    reported = dict.fromkeys([id_ for id_ in range(16) if params >> id_ & 1], now)
    scale = max(1.0, interval / 0.4)
    for pause, bitmap in steps:
        now += pause
        for id_ in range(16):
            if bitmap >> id_ & 1:
                counts[id_] += 1
                if id_ in reported:
                    reported[id_] = now
        verdict = reports.check(counts, now)
        silence = max(now - time for time in reported.values()) / scale
        assert (
            verdict == judge(silence)
            or min(abs(silence - limit) for limit in (1, 1.75, 2.75)) < 1e-6
        )
        assert (verdict is Verdict.REPORTING) == (reports.silent == 0)
        assert reports.silent & ~params == 0
