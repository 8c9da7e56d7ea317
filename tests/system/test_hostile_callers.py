"""Costly calls delay neither the team's code nor stops."""

import itertools
import secrets
from typing import Any

import pytest
import trio
import zmq
from support.board import Board
from support.robot import PATIENCE, Robot

from rt.errors import RemoteCallError
from rt.remote import Client, SocketNode

pytestmark = pytest.mark.system

LONGEST_PAUSE = 1.0
"""Maximum time (s) between two writes at the board, for a busy machine."""
WRITES = 20

DRIVES = """
import itertools
speeds = itertools.cycle([0.25, 0.5])

def autonomous_main():
    Robot.write("motor", "duty_cycle", next(speeds))
"""

NAME = "m" * 900_000
HOSTILE: dict[str, list[tuple[str, list[Any]]]] = {
    "device-service": [
        ("ping", [["m1"] * 250_000]),
        ("ping", [["m1"] * 5000]),
        ("disable", [["m1"] * 250_000]),
        ("subscribe", ["motor", ["duty_cycle"] * 80_000]),
        ("read", [NAME]),
        ("heartbeat", [NAME]),
    ],
    "broker-service": [
        ("get_option", [NAME]),
        ("set_option", [{f"dev_name{number}": 1 for number in range(60_000)}]),
        ("set_option", [{"exec_timeout": {"(" * 4000: 1.0}}]),
        ("update_gamepads", [{str(number): {} for number in range(100_000)}]),
        ("take_control", [NAME]),
    ],
    "executor-service": [
        ("execute", [[{"func": f"f{number}"} for number in range(40_000)]]),
        ("execute", [[{"func": "f" * 100_000, "args": []}] * 9]),
        ("execute", [[{"func": "drive", "args": [[[[]] * 1000] * 100]}]]),
        ("auto", [["m1"] * 250_000]),
        ("mode", [NAME]),
    ],
}
"""Calls that would occupy a process without bounds."""


class Callers:
    """Programs that make the same calls again and again.

    Attributes:
        refusals: What each call was answered, in the order of the calls.
    """

    def __init__(self, robot: Robot, service: str) -> None:
        self.refusals: list[list[str]] = [[] for _ in HOSTILE[service]]
        self._robot = robot
        self._service = service

    async def call(self, first: int) -> None:
        """Make all calls in turn until cancelled, beginning with the given one."""
        node = SocketNode(
            zmq.DEALER,
            f"hostile-{secrets.token_hex(4)}",
            connections=[f"ipc://{self._robot.instance.path('router-frontend.sock')}"],
        )
        calls = list(enumerate(HOSTILE[self._service]))
        async with Client(node, address=self._service, timeout=PATIENCE) as client:
            for number, (method, arguments) in itertools.cycle(calls[first:] + calls[:first]):
                try:
                    await client.issue_call(method, *arguments, timeout=1.0)
                except RemoteCallError as error:
                    self.refusals[number].append(error.message)


@pytest.mark.parametrize("service", HOSTILE)
async def test_costly_calls_do_not_delay_driving_or_stops(robot: Robot, service: str) -> None:
    board = Board()
    robot.write("studentcode.py", DRIVES)
    await robot.start()
    await robot.plug_pty(board)
    await robot.connected(board)
    await robot.call("auto")
    await board.moves()
    callers = Callers(robot, service)
    device, began = robot.child("device"), board.writes_heard
    async with trio.open_nursery() as calls:
        for number in range(5):
            calls.start_soon(callers.call, number)
        with trio.fail_after(PATIENCE):
            while min(map(len, callers.refusals)) < 2 or board.writes_heard < began + WRITES:
                with trio.move_on_after(LONGEST_PAUSE) as pause:
                    heard = board.writes_heard
                    await board.settles(lambda heard=heard: board.writes_heard > heard)  # type: ignore[misc]
                assert not pause.cancelled_caught, (
                    f"nothing has reached the board for {LONGEST_PAUSE} s"
                )
        await robot.call("idle")
        await board.stops()
        calls.cancel_scope.cancel()
    assert await robot.call("mode") == "idle"
    assert not board.moving
    assert robot.child("device") == device
    assert max(len(each) for refusals in callers.refusals for each in refusals) <= 1000
    assert not [
        entry for entry in robot.log if entry["event"] in {"child is killing", "handler failed"}
    ]
