"""Subscriptions of visitors last as long as these stay, and then what was there before counts again."""

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

LASTING, FIRST, SECOND = SubReq(0b1, 100), SubReq(0b10, 100), SubReq(0b100, 100)
SLOT = 8


async def until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - another task's next step
            await trio.sleep(0.001)


def test_the_last_subscription_counts_and_then_the_one_before() -> None:
    subscriptions = Subscriptions()
    assert subscriptions.current is None
    subscriptions.add(LASTING)
    subscriptions.add(FIRST, 1)
    subscriptions.add(SECOND, 2)
    assert subscriptions.current == SECOND
    assert subscriptions.end(lambda visit: visit == 2)
    assert subscriptions.current == FIRST
    assert subscriptions.end(lambda visit: visit == 1)
    assert subscriptions.current == LASTING
    assert not subscriptions.end(lambda _: True)


def test_of_two_visits_that_overlap_the_first_may_end_first() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(FIRST, 1)
    subscriptions.add(SECOND, 2)
    assert not subscriptions.end(lambda visit: visit == 1), "the second's still counts"
    assert subscriptions.end(lambda visit: visit == 2)
    assert subscriptions.current is None, "and not the first's"


def test_a_visit_that_subscribes_again_replaces_its_own() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(FIRST, 1)
    subscriptions.add(SECOND, 2)
    subscriptions.add(LASTING, 1)
    assert subscriptions.current == LASTING
    subscriptions.end(lambda visit: visit == 1)
    assert subscriptions.current == SECOND


def test_a_lasting_subscription_ends_those_of_visitors() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(FIRST, 1)
    subscriptions.add(LASTING)
    assert not subscriptions.end(lambda _: True)
    assert subscriptions.current == LASTING


async def test_a_visitor_that_leaves_without_a_word_gives_the_subscription_back(
    robot: Robot,
) -> None:
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


async def test_a_visit_that_is_over_before_the_device_has_answered_leaves_nothing(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.subscription == ["switch0", "switch1", "switch2"])
    deaf = Deaf(board, SubReq)
    visit = robot.leases.session_id(SLOT)

    async def subscribe() -> None:
        with pytest.raises(DeviceError, match="did not answer"):
            await robot.manager.subscribe(str(board.device.uid), ["switch1"], 0.2, visit)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscribe)
        await trio.testing.wait_all_tasks_blocked()
        robot.leases.end_session(SLOT)
        robot.write_event.signal()
        await trio.testing.wait_all_tasks_blocked()
        deaf.to = ()
    await trio.sleep(2)
    assert buffer.subscription == ["switch0", "switch1", "switch2"]
    assert board.heard[-1] == SubReq(0b111, 40)


class Deaf:
    """Makes a board take no notice of some messages, until it hears again."""

    def __init__(self, board: Board, *to: type[Message]) -> None:
        self.to = to
        self._handle = board.device.handle
        board.device.handle = self.handle  # type: ignore[method-assign]

    def handle(self, item: Message | RemoteProtocolError, now: float) -> list[Message]:
        return [] if isinstance(item, self.to) else self._handle(item, now)


async def test_a_visit_that_was_over_before_its_call_came_asks_for_nothing_though_the_device_is_slow(
    robot: Robot, autojump_clock: MockClock
) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.subscription)
    visit = robot.leases.session_id(SLOT)
    robot.leases.end_session(SLOT)
    robot.write_event.signal()
    await trio.testing.wait_all_tasks_blocked()
    deaf = Deaf(board, SubReq)
    await robot.manager.subscribe(str(board.device.uid), ["switch1"], 0.2, visit)
    deaf.to = ()
    await robot.manager.devices[board.device.uid].resubscribe()
    assert buffer.subscription == ["switch0", "switch1", "switch2"]


async def test_a_visit_that_ends_while_the_device_is_silent_is_over_when_it_answers_again(
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


async def test_a_device_of_which_the_catalog_wants_nothing_reports_again_what_was_asked_of_it(
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
    board.device.reset()  # it has lost its power
    deaf.to = ()
    await until(lambda: buffer.valid and buffer.interval)
    assert buffer.subscription == ["switch1"]


@pytest.mark.parametrize("gives_up", [False, True], ids=["no answer", "the caller has gone"])
async def test_what_a_device_did_not_hear_of_the_end_of_a_subscription_it_is_told_when_the_visit_is_over(
    robot: Robot, autojump_clock: MockClock, gives_up: bool
) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    uid, buffer = str(board.device.uid), robot.buffer_of(board)
    await until(lambda: buffer.subscription)
    visit = robot.leases.session_id(SLOT)
    await robot.manager.subscribe(uid, ["switch1"], 0.2, visit)
    deaf = Deaf(board, SubReq)
    if gives_up:
        with trio.move_on_after(0.01):
            await robot.manager.unsubscribe(uid, visit)
    else:
        with pytest.raises(DeviceError, match="did not answer"):
            await robot.manager.unsubscribe(uid, visit)
    deaf.to = ()
    assert buffer.subscription == ["switch1"]
    robot.leases.end_session(SLOT)
    robot.write_event.signal()
    await until(lambda: buffer.subscription == ["switch0", "switch1", "switch2"])


async def test_a_subscription_for_good_that_is_not_answered_yet_is_newer_than_one_that_is_put_back(
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


async def test_the_end_of_a_visit_changes_nothing_of_a_subscription_made_since(
    robot: Robot,
) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    uid, buffer = str(board.device.uid), robot.buffer_of(board)
    await until(lambda: buffer.subscription)
    visit = robot.leases.session_id(SLOT)
    await robot.manager.subscribe(uid, ["switch1"], 0.2, visit)
    await robot.manager.subscribe(uid, ["switch2"], 0.1)
    await robot.manager.unsubscribe(uid, visit)
    assert (buffer.subscription, buffer.interval) == (["switch2"], 0.1)
