"""Subscriptions of visitors last as long as these stay, and then what was there before counts again."""

from collections.abc import Callable
from typing import Any

import trio
from support.device_robot import Robot, make_board

from rt.protocol.message import SubReq
from rt.smartdevice.subscriptions import Subscriptions

LASTING, FIRST, SECOND = SubReq(0b1, 100), SubReq(0b10, 100), SubReq(0b100, 100)
SEAT = 8


async def until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - another task's next step
            await trio.sleep(0.001)


def test_the_last_subscription_counts_and_then_the_one_before() -> None:
    subscriptions = Subscriptions()
    assert subscriptions.present is None
    subscriptions.add(LASTING)
    subscriptions.add(FIRST, 1)
    subscriptions.add(SECOND, 2)
    assert subscriptions.present == SECOND
    assert subscriptions.end(lambda visit: visit == 2)
    assert subscriptions.present == FIRST
    assert subscriptions.end(lambda visit: visit == 1)
    assert subscriptions.present == LASTING
    assert not subscriptions.end(lambda _: True)


def test_of_two_visits_that_overlap_the_first_may_end_first() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(FIRST, 1)
    subscriptions.add(SECOND, 2)
    assert not subscriptions.end(lambda visit: visit == 1), "the second's still counts"
    assert subscriptions.end(lambda visit: visit == 2)
    assert subscriptions.present is None, "and not the first's"


def test_a_visit_that_subscribes_again_replaces_its_own() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(FIRST, 1)
    subscriptions.add(SECOND, 2)
    subscriptions.add(LASTING, 1)
    assert subscriptions.present == LASTING
    subscriptions.end(lambda visit: visit == 1)
    assert subscriptions.present == SECOND


def test_a_lasting_subscription_ends_those_of_visitors() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(FIRST, 1)
    subscriptions.add(LASTING)
    assert not subscriptions.end(lambda _: True)
    assert subscriptions.present == LASTING


async def test_a_visitor_that_leaves_without_a_word_gives_the_subscription_back(robot: Robot) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.subscription == ["switch0", "switch1", "switch2"])
    await robot.manager.subscribe(str(board.device.uid), ["switch1"], 0.2, robot.leases.visit_of(SEAT))
    assert (buffer.subscription, buffer.interval) == (["switch1"], 0.2)
    robot.leases.end_visit(SEAT)  # as the root does
    robot.doorbell.ring()
    await until(lambda: buffer.subscription == ["switch0", "switch1", "switch2"])
    assert buffer.interval == 0.04


async def test_a_visit_that_is_over_before_the_device_has_answered_leaves_nothing(robot: Robot) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    buffer = robot.buffer_of(board)
    await until(lambda: buffer.subscription == ["switch0", "switch1", "switch2"])
    visit = robot.leases.visit_of(SEAT)
    robot.leases.end_visit(SEAT)
    await robot.manager.subscribe(str(board.device.uid), ["switch1"], 0.2, visit)
    assert buffer.subscription == ["switch0", "switch1", "switch2"]


async def test_the_end_of_a_visit_changes_nothing_of_a_subscription_made_since(robot: Robot) -> None:
    board = make_board("limit-switch")
    await robot.plug(board)
    uid, buffer = str(board.device.uid), robot.buffer_of(board)
    await until(lambda: buffer.subscription)
    visit = robot.leases.visit_of(SEAT)
    await robot.manager.subscribe(uid, ["switch1"], 0.2, visit)
    await robot.manager.subscribe(uid, ["switch2"], 0.1)
    await robot.manager.unsubscribe(uid, visit)
    assert (buffer.subscription, buffer.interval) == (["switch2"], 0.1)
