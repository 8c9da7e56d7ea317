"""Teleop needs a live driver: stations that die, return or compete, measured at the board."""

import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio
from support.board import PARAM, Board
from support.driving import comes_to_rest
from support.robot import PATIENCE, Plug, Robot

from rt.errors import RemoteCallError
from rt.protocol.datagrams import NEUTRAL, SILENCE, GamepadState, Stamp, encode_gamepads
from rt.protocol.message import DevDisable, DevWrite
from rt.remote import DatagramNode
from rt.testing.gamepads import WAITING

pytestmark = pytest.mark.system

STICKY = """
def teleop_main():
    y = Gamepad.get("joystick_left_y")
    if y:
        Robot.write("motor", "duty_cycle", y)
"""
"""A program that never writes 0, so that only the robot can stop its motor."""
CONSTANT = """
def teleop_main():
    Robot.write("motor", "duty_cycle", 0.5)

def spin():
    Robot.write("motor", "duty_cycle", 0.5)
"""
PUSHED = GamepadState(0.0, 0.5, 0.0, 0.0, 0)
PULLED = GamepadState(0.0, -0.5, 0.0, 0.0, 0)
ROUNDS = 3
MARGIN = 0.1
"""Time (s) from the silence of the driver to the last motion at the board."""
WATCHED = 25
"""Number of a driver's updates to observe at the board."""


class Motor(Board):
    """A motor that reports the values written to it."""

    def duty_cycles(self, since: int = 0) -> list[float]:
        """Return the values written since a message."""
        writes = [message for message in self.messages[since:] if isinstance(message, DevWrite)]
        values = [
            self.emulated.peripheral.unpack(message.params, message.data) for message in writes
        ]
        return [value[PARAM] for value in values if PARAM in value]


class Station:
    """A driver's station that sends only the updates of the test."""

    def __init__(self, node: DatagramNode) -> None:
        self._node = node
        self.sent_at = 0.0

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, robot: Robot) -> "AsyncIterator[Station]":
        """Open a station during the block."""
        async with DatagramNode("127.0.0.1", robot.port_base + 2, bind=False) as node:
            yield cls(node)

    async def send(self, state: GamepadState, index: int = 0) -> None:
        """Send one update."""
        self.sent_at = time.monotonic()
        await self._node.send(b"", encode_gamepads({index: state}))

    async def send_raw(self, datagram: bytes) -> None:
        """Send any datagram."""
        await self._node.send(b"", datagram)

    async def repeat(self, datagram: bytes) -> None:
        """Send a datagram repeatedly until cancelled."""
        while True:
            await self.send_raw(datagram)
            await trio.sleep(0.02)

    async def hold(self, state: GamepadState, updates: int = WATCHED, index: int = 0) -> None:
        """Send the same update repeatedly."""
        for _ in range(updates):
            await self.send(state, index)
            await trio.sleep(0.02)

    async def push(self, board: Motor, state: GamepadState = PUSHED, index: int = 0) -> None:
        """Release the sticks, then push until the motor turns."""
        since = len(board.messages)
        await self.hold(NEUTRAL, 5, index)
        with trio.fail_after(PATIENCE):
            while state.ly not in board.duty_cycles(since):
                await self.hold(state, 1, index)


async def ready(
    robot: Robot, plug: Plug, program: str = STICKY, *, needs_gamepad: bool = True
) -> Motor:
    robot.write("studentcode.py", program)
    board = Motor()
    await robot.start("--teleop-needs-gamepad" if needs_gamepad else "--no-teleop-needs-gamepad")
    await plug(board)
    await robot.connected(board)
    return board


async def is_live(robot: Robot) -> bool:
    """Return whether the robot's driver is live."""
    report = await robot.call("commander")
    return bool(report["driver"] == "live")


async def test_motion_stops_when_the_station_dies_and_resumes_after_rest(
    robot: Robot, plug: Plug, capsys: pytest.CaptureFixture[str]
) -> None:
    board = await ready(robot, plug)
    await robot.call("teleop")
    late: list[float] = []
    async with Station.of(robot) as station:
        for number in range(1, ROUNDS + 1):
            await station.push(board)
            late.append(await board.stops() - station.sent_at - SILENCE)
            position = len(board.messages)
            await robot.logged("driver silent", count=number)
            # The station returns with its stick unchanged.
            await station.hold(PUSHED)
            await robot.logged(WAITING, count=number)
            assert board.duty_cycles(position) == []
            assert not board.moving
        await station.push(board)
    with capsys.disabled():
        print(  # noqa: T201
            f"\nDEV_DISABLE after the driver's silence: {', '.join(f'{each * 1e3:.0f} ms' for each in late)}"
        )
    assert all(each >= -0.02 for each in late), "motion stopped before the driver was silent"
    assert min(late) <= MARGIN


async def test_short_gaps_between_updates_do_not_stop_motion(robot: Robot) -> None:
    board = await ready(robot, robot.plug_tcp)
    await robot.call("teleop")
    async with Station.of(robot) as station:
        await station.push(board)
        since, longest = len(board.messages), 0.0
        for _ in range(8):
            before = station.sent_at
            await station.send(PUSHED)
            longest = max(longest, station.sent_at - before)
            await trio.sleep(0.5 * SILENCE)
        silent = any(entry["event"] == "driver silent" for entry in robot.log)
        stopped = any(isinstance(message, DevDisable) for message in board.messages[since:])
        # A busy machine may have sent too late, or delayed the team's code.
        assert not silent or longest > 0.8 * SILENCE
        assert not stopped or silent or any("disabled" in entry["event"] for entry in robot.log)
    await robot.logged("driver silent")


@pytest.mark.parametrize(
    "silence",
    ["nothing", "updates without a gamepad", "garbage", "recorded updates", "refused ones"],
)
async def test_invalid_updates_count_as_silence(robot: Robot, silence: str) -> None:
    board = await ready(robot, robot.plug_tcp)
    await robot.call("teleop")
    stamp = Stamp("recorder", 1, time.time())
    async with (
        Station.of(robot) as station,
        Station.of(robot) as other,
        trio.open_nursery() as nursery,
    ):
        stamped = itertools.count(2)
        if silence == "recorded updates":
            await station.send_raw(encode_gamepads({0: NEUTRAL}, stamp))
            with trio.fail_after(PATIENCE):
                while not board.moving:
                    state = PUSHED if await is_live(robot) else NEUTRAL
                    await station.send_raw(
                        encode_gamepads({0: state}, Stamp("recorder", next(stamped), time.time()))
                    )
                    await trio.sleep(0.02)
        else:
            await station.push(board)
        datagram = {
            "nothing": None,
            "updates without a gamepad": encode_gamepads({}),
            "garbage": b"\x93\x02\xc1",
            "recorded updates": encode_gamepads({0: PUSHED}, stamp),
            "refused ones": encode_gamepads({0: PUSHED}),
        }[silence]
        if datagram is not None:
            nursery.start_soon((other if silence == "refused ones" else station).repeat, datagram)
        # On a busy machine another station may take control at the moment of the silence.
        await robot.logged_one_of("driver silent", "gamepad reads neutral")
        stopped = await board.stops()
        await trio.sleep(1.0)
        assert board.moved_since(stopped) == 0.0
        nursery.cancel_scope.cancel()


HELD = {
    "a stick": PUSHED,
    "another axis of it": GamepadState(0.3, 0.0, 0.0, 0.0, 0),
    "the other stick": GamepadState(0.0, 0.0, 0.0, -1.0, 0),
    "a button": GamepadState(0.0, 0.0, 0.0, 0.0, 1),
}


@pytest.mark.parametrize("held", list(HELD))
async def test_control_held_when_teleop_begins_moves_nothing(robot: Robot, held: str) -> None:
    board = await ready(robot, robot.plug_tcp, CONSTANT)
    async with Station.of(robot) as station:
        await station.hold(NEUTRAL, 5)
        await station.hold(HELD[held], 5)
        await robot.call("teleop")
        await station.hold(HELD[held])
        await robot.logged(WAITING)
        assert board.duty_cycles() == []
        await station.hold(NEUTRAL, 5)
        with trio.fail_after(PATIENCE):
            while not board.moving:
                await station.hold(NEUTRAL, 1)


async def test_stick_deflected_when_teleop_begins_moves_nothing(robot: Robot) -> None:
    board = await ready(robot, robot.plug_tcp)
    async with Station.of(robot) as station:
        await station.hold(NEUTRAL, 5)
        await station.hold(PUSHED, 5)
        await robot.call("teleop")
        await station.hold(PUSHED)
        await robot.logged(WAITING)
        assert board.duty_cycles() == []
        await station.push(board)


async def test_second_gamepad_alone_drives_and_its_silence_stops(robot: Robot) -> None:
    board = await ready(robot, robot.plug_tcp, STICKY.replace('_y")', '_y", 1)'))
    await robot.call("teleop")
    async with Station.of(robot) as station:
        await station.push(board, index=1)
        await board.disabled(len(board.messages))


async def test_second_station_is_refused_until_it_takes_control(robot: Robot) -> None:
    board = await ready(robot, robot.plug_tcp)
    await robot.call("teleop")
    async with (
        Station.of(robot) as first,
        Station.of(robot) as second,
        trio.open_nursery() as nursery,
    ):
        await first.push(board)
        nursery.start_soon(first.hold, PUSHED, 1_000_000)
        await second.hold(PULLED)
        refused = await robot.logged("gamepad update refused")
        await second.hold(PULLED)
        assert set(board.duty_cycles()) == {0.5}

        async with trio.open_nursery() as pulling:
            pulling.start_soon(
                second.hold, PULLED, 1_000_000
            )  # only a station that sends can be meant
            report = await robot.call("commander")
            assert (report["commander"], report["driver"]) == (refused["commander"], "live")
            assert [each["station"] for each in report["refused"]] == [refused["station"]]
            assert (await robot.call("stations"))["commander"] == refused["commander"]

            done = await robot.command("call", "take_control")
            assert done.returncode == 0, done.stderr
            await robot.logged("control taken over", station=refused["station"])
            await comes_to_rest(robot, board)
            since = len(board.messages)
            pulling.cancel_scope.cancel()
        await second.hold(PULLED)
        assert board.duty_cycles(since) == [], "the second station's stick was not at rest"
        since = len(board.messages)
        await second.push(board, PULLED)
        assert set(board.duty_cycles(since)) == {-0.5}
        nursery.cancel_scope.cancel()


BOTH = """
def teleop_main():
    for index in (0, 1):
        y = Gamepad.get("joystick_left_y", index)
        if y:
            Robot.write("motor", "duty_cycle", y)
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("datagrams", "another gamepad"),
        ("calls", "datagrams"),
        ("datagrams", "calls"),
        ("calls", "calls"),
        ("stamped", "stamped"),
        ("datagrams", "stamped"),
    ],
)
async def test_updates_of_two_stations_never_mix(robot: Robot, first: str, second: str) -> None:
    board = await ready(robot, robot.plug_tcp, BOTH)
    await robot.call("teleop")
    async with (
        sending(robot, first, "one") as send_first,
        sending(robot, second, "two") as send_second,
    ):
        with trio.fail_after(PATIENCE):
            while not board.moving:
                await send_first(PUSHED if await is_live(robot) else NEUTRAL)
                await trio.sleep(0.02)
        for _ in range(WATCHED):
            await send_first(PUSHED)
            await send_second(NEUTRAL)
            await send_second(PULLED)
            await trio.sleep(0.01)
        await robot.logged("gamepad update refused")
        assert set(board.duty_cycles()) == {0.5}
        report = await robot.call("commander")
        assert len(report["refused"]) == 1
        assert report["refused"][0]["station"] != report["commander"]


Send = Callable[[GamepadState], Awaitable[None]]


@contextlib.asynccontextmanager
async def sending(robot: Robot, way: str, name: str) -> AsyncIterator[Send]:
    """Open a station that sends gamepads in one of several ways."""
    if way == "calls":
        async with robot.client() as client:

            async def call(state: GamepadState) -> None:
                with contextlib.suppress(RemoteCallError):  # refused
                    update = {"0": msgspec.to_builtins(state)}
                    await client.issue_call(
                        "update_gamepads", update, address="broker-service", timeout=PATIENCE
                    )

            yield call
    else:
        async with Station.of(robot) as station:
            numbers = itertools.count(1)

            async def send(state: GamepadState) -> None:
                stamp = Stamp(name, next(numbers), time.time()) if way == "stamped" else None
                await station.send_raw(
                    encode_gamepads({int(way == "another gamepad"): state}, stamp)
                )

            yield send


HINTS = {
    "absent": "no gamepad is connected: nothing moves until one is connected and its sticks have been at rest",
    "held": "a stick or a button of the gamepad is held: nothing moves until all are released once",
    "silent": "the gamepad is silent: nothing moves until it sends again and its sticks have been at rest",
}


@pytest.mark.parametrize("method", ["teleop", "execute"])
@pytest.mark.parametrize("driver", list(HINTS))
async def test_teleop_call_reports_what_the_driver_must_do(
    robot: Robot, driver: str, method: str
) -> None:
    board = await ready(robot, robot.plug_tcp, CONSTANT)
    arguments = [json.dumps([{"func": "spin", "periodic": True}])] if method == "execute" else []
    async with Station.of(robot) as station, trio.open_nursery() as nursery:
        if driver == "held":
            nursery.start_soon(station.hold, PUSHED, 1_000_000)
            await robot.logged(WAITING)
        elif driver == "silent":
            await station.hold(NEUTRAL, 1)
            await robot.logged("driver silent")
        done = await robot.command("call", method, *arguments)
        assert done.returncode == 0, done.stderr
        assert HINTS[driver] in done.stdout + done.stderr
        await trio.sleep(SILENCE)
        assert board.duty_cycles() == []
        nursery.cancel_scope.cancel()


async def test_teleop_without_gamepad_waits_and_logs_the_reason(robot: Robot) -> None:
    board = await ready(robot, robot.plug_tcp)
    done = await robot.command("call", "teleop")
    assert done.returncode == 0
    assert "no gamepad is connected" in done.stdout + done.stderr
    assert await robot.call("mode") == "teleop"
    async with Station.of(robot) as station:
        await station.push(board)


ACTION = """
async def spin():
    while True:
        Robot.write("motor", "duty_cycle", 0.5)
        await Actions.sleep(0.01)

def teleop_setup():
    Actions.run(spin)

def teleop_main():
    pass
"""


@pytest.mark.parametrize(
    ("program", "method", "arguments"),
    [
        (ACTION, "teleop", ()),
        (CONSTANT, "teleop", ()),
        (CONSTANT, "execute", ([{"func": "spin", "args": [], "periodic": True, "timeout": 0.05}],)),
    ],
    ids=["action", "main", "execute"],
)
async def test_code_that_ignores_the_gamepad_needs_a_driver(
    robot: Robot, program: str, method: str, arguments: tuple[Any, ...]
) -> None:
    board = await ready(robot, robot.plug_tcp, program)
    await robot.call(method, *arguments)
    async with Station.of(robot) as station:
        await station.hold(PUSHED)
        assert not board.pulses
        await station.push(board)
        stopped = await board.stops()
        assert stopped >= station.sent_at + SILENCE - 0.02
        await station.hold(PUSHED)
        assert board.moved_since(stopped) == 0.0


async def test_restarted_station_drives_without_taking_control(robot: Robot) -> None:
    board = await ready(robot, robot.plug_tcp)
    await robot.call("teleop")
    async with Station.of(robot) as station:
        await station.push(board)
    await board.stops()
    async with Station.of(robot) as station:
        await station.push(board, PULLED)
    assert not any(entry["event"] == "gamepad update refused" for entry in robot.log)


UNATTENDED = """
def teleop_main():
    Robot.write("motor", "duty_cycle", 0.5)

def autonomous_main():
    Robot.write("motor", "duty_cycle", -0.5)
"""


async def test_option_lets_teleop_move_without_a_gamepad(robot: Robot) -> None:
    board = await ready(robot, robot.plug_tcp, UNATTENDED, needs_gamepad=False)
    await robot.call("teleop")
    await board.written(duty_cycle=0.5)


async def test_autonomous_needs_no_gamepad(robot: Robot) -> None:
    board = await ready(robot, robot.plug_tcp, UNATTENDED)
    await robot.call("teleop")
    async with Station.of(robot) as station:
        await station.hold(PUSHED)
    await robot.logged("driver silent")
    assert board.duty_cycles() == []
    await robot.call("auto")
    await board.written(duty_cycle=-0.5)
