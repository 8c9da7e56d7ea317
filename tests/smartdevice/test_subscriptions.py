"""Subscriptions of sessions end with them, and then the previous one is current again."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from support.device_robot import Board, Robot, make_board
from trio.testing import MockClock

from rt.catalog import Peripheral
from rt.errors import DeviceError, RemoteProtocolError
from rt.protocol.message import HbReq, Message, Ping, SubReq
from rt.smartdevice.subscriptions import Subscriptions

PERMANENT, FIRST, SECOND = SubReq(0b1, 100), SubReq(0b10, 100), SubReq(0b100, 100)
SLOT = 8


async def until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - another task's next step
            await trio.sleep(0.001)


def test_previous_subscription_returns_when_session_ends() -> None:
    subscriptions = Subscriptions()
    assert subscriptions.current is None
    subscriptions.add(PERMANENT)
    subscriptions.add(FIRST, 1)
    subscriptions.add(SECOND, 2)
    assert subscriptions.current == SECOND
    assert subscriptions.end(lambda session: session == 2)
    assert subscriptions.current == FIRST
    assert subscriptions.end(lambda session: session == 1)
    assert subscriptions.current == PERMANENT
    assert not subscriptions.end(lambda _: True)


def test_first_of_two_sessions_may_end_first() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(FIRST, 1)
    subscriptions.add(SECOND, 2)
    assert not subscriptions.end(lambda session: session == 1), "the second one stays current"
    assert subscriptions.end(lambda session: session == 2)
    assert subscriptions.current is None, "the first one does not return"


def test_session_that_subscribes_again_replaces_its_own() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(FIRST, 1)
    subscriptions.add(SECOND, 2)
    subscriptions.add(PERMANENT, 1)
    assert subscriptions.current == PERMANENT
    subscriptions.end(lambda session: session == 1)
    assert subscriptions.current == SECOND


def test_permanent_subscription_ends_those_of_sessions() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(FIRST, 1)
    subscriptions.add(PERMANENT)
    assert not subscriptions.end(lambda _: True)
    assert subscriptions.current == PERMANENT


async def test_end_of_session_restores_the_subscription(robot: Robot) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.subscription == ["switch0", "switch1", "switch2"])
    await robot.manager.subscribe(
        str(board.device.uid), ["switch1"], 0.2, robot.leases.session_id(SLOT)
    )
    assert (buffer.subscription, buffer.interval) == (["switch1"], 0.2)
    robot.leases.end_session(SLOT)  # as the root does
    robot.write_event.signal()
    await until(lambda: buffer.subscription == ["switch0", "switch1", "switch2"])
    assert buffer.interval == 0.04


async def test_session_ended_before_the_answer_leaves_no_subscription(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.subscription == ["switch0", "switch1", "switch2"])
    deaf = Deaf(board, SubReq)
    session = robot.leases.session_id(SLOT)

    async def subscribe() -> None:
        with pytest.raises(DeviceError, match="no answer"):
            await robot.manager.subscribe(str(board.device.uid), ["switch1"], 0.2, session)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscribe)
        await trio.testing.wait_all_tasks_blocked()
        robot.leases.end_session(SLOT)
        robot.write_event.signal()
        await trio.testing.wait_all_tasks_blocked()
        deaf.to = ()
    await trio.sleep(2)
    assert buffer.subscription == ["switch0", "switch1", "switch2"]
    assert board.received[-1] == SubReq(0b111, 40)


class Deaf:
    """Makes a board ignore some messages."""

    def __init__(self, board: Board, *to: type[Message]) -> None:
        self.to = to
        self._handle = board.device.handle
        board.device.handle = self.handle  # type: ignore[method-assign]

    def handle(self, item: Message | RemoteProtocolError, now: float) -> list[Message]:
        return [] if isinstance(item, self.to) else self._handle(item, now)


async def test_call_of_ended_session_subscribes_to_nothing(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.subscription)
    session = robot.leases.session_id(SLOT)
    robot.leases.end_session(SLOT)
    robot.write_event.signal()
    await trio.testing.wait_all_tasks_blocked()
    deaf = Deaf(board, SubReq)
    await robot.manager.subscribe(str(board.device.uid), ["switch1"], 0.2, session)
    deaf.to = ()
    await robot.manager.devices[board.device.uid].resubscribe()
    assert buffer.subscription == ["switch0", "switch1", "switch2"]


async def test_session_that_ends_during_silence_is_not_restored(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.subscription)
    await robot.manager.subscribe(
        str(board.device.uid), ["switch1"], 0.2, robot.leases.session_id(SLOT)
    )
    deaf = Deaf(board, Ping, HbReq)
    robot.manager.devices[board.device.uid].mark_lost()
    await until(lambda: not buffer.valid)
    robot.leases.end_session(SLOT)
    robot.write_event.signal()
    await trio.testing.wait_all_tasks_blocked()
    deaf.to = ()
    await until(lambda: buffer.valid and buffer.interval)
    assert buffer.subscription == ["switch0", "switch1", "switch2"]


async def test_request_is_restored_without_catalog_subscription(
    robot: Robot, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Peripheral, "subscribed", 0)
    board = make_board("limit-switch")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.valid)
    await robot.manager.subscribe(str(board.device.uid), ["switch1"], 0.2)
    deaf = Deaf(board, Ping, HbReq)
    robot.manager.devices[board.device.uid].mark_lost()
    await until(lambda: not buffer.valid)
    board.device.reset()  # as after a loss of power
    deaf.to = ()
    await until(lambda: buffer.valid and buffer.interval)
    assert buffer.subscription == ["switch1"]


@pytest.mark.parametrize("gives_up", [False, True], ids=["no answer", "caller gone"])
async def test_lost_unsubscribe_is_repeated_at_end_of_session(
    robot: Robot, autojump_clock: MockClock, gives_up: bool
) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    uid, buffer = str(board.device.uid), robot.buffer_of(board)
    await until(lambda: buffer.subscription)
    session = robot.leases.session_id(SLOT)
    await robot.manager.subscribe(uid, ["switch1"], 0.2, session)
    deaf = Deaf(board, SubReq)
    if gives_up:
        with trio.move_on_after(0.01):
            await robot.manager.unsubscribe(uid, session)
    else:
        with pytest.raises(DeviceError, match="no answer"):
            await robot.manager.unsubscribe(uid, session)
    deaf.to = ()
    assert buffer.subscription == ["switch1"]
    robot.leases.end_session(SLOT)
    robot.write_event.signal()
    await until(lambda: buffer.subscription == ["switch0", "switch1", "switch2"])


async def test_unanswered_permanent_subscription_is_not_overwritten(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    uid, buffer = str(board.device.uid), robot.buffer_of(board)
    await until(lambda: buffer.subscription)
    await robot.manager.subscribe(uid, ["switch1"], 0.2, robot.leases.session_id(SLOT))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.manager.subscribe, uid, ["switch2"], 0.1)
        await trio.lowlevel.checkpoint()
        robot.leases.end_session(SLOT)  # while the device has not answered
        robot.write_event.signal()
    await trio.sleep(0.1)
    assert (buffer.subscription, buffer.interval) == (["switch2"], 0.1)


async def test_end_of_session_keeps_newer_permanent_subscription(robot: Robot) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    uid, buffer = str(board.device.uid), robot.buffer_of(board)
    await until(lambda: buffer.subscription)
    session = robot.leases.session_id(SLOT)
    await robot.manager.subscribe(uid, ["switch1"], 0.2, session)
    await robot.manager.subscribe(uid, ["switch2"], 0.1)
    await robot.manager.unsubscribe(uid, session)
    assert (buffer.subscription, buffer.interval) == (["switch2"], 0.1)
