"""`idle` and `estop` stop every commander in every state, measured at a motor."""

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Iterable
from typing import Any

import pytest
import trio
from support.board import Board
from support.driving import DRIVE, commanding, driving, family, message, stays_still, with_motor
from support.robot import COMMAND, PATIENCE, Robot

pytestmark = pytest.mark.system

CODE = {
    "drives": f"""
def autonomous_main():
    {DRIVE}
""",
    "spins": f"""
async def act():
    while True:
        {DRIVE}
def autonomous_setup():
    Actions.run(act)
""",
    "holds the interpreter": f"""
def autonomous_main():
    {DRIVE}
    sum(range(10**9))
""",
    "blocks signals": f"""
import signal
def autonomous_main():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    {DRIVE}
    while True:
        pass
""",
    "swallows every exception": f"""
def autonomous_main():
    while True:
        try:
            while True:
                {DRIVE}
        except BaseException:
            pass
""",
}
IMPORTS = """
import time
print("loading")
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""
STATES = [
    *CODE,
    "is stopped",
    "is starting",
    "fails to start",
    "loads code that does not return",
    "has nothing to do",
]


def alternating(cases: Iterable[str], *values: Any) -> list[tuple[str, Any]]:
    """Pair each case with one value in turn, by default `idle` and `estop`, to save time."""
    return list(zip(cases, itertools.cycle(values or ("idle", "estop")), strict=False))


async def in_state(robot: Robot, nursery: trio.Nursery, state: str) -> Board:
    """Start a robot whose executor is in a state, and whose motor has moved."""
    board = await driving(robot, CODE.get(state, CODE["drives"]))
    process = robot.child("executor")
    if state == "is stopped":
        os.kill(process, signal.SIGSTOP)
    elif state == "is starting":
        os.kill(process, signal.SIGKILL)
    elif state == "fails to start":
        await fail(robot)
    elif state == "loads code that does not return":
        robot.write("studentcode.py", IMPORTS)
        nursery.start_soon(robot.command, "call", "teleop")
        await robot.logged("loading")
    elif state == "has nothing to do":
        await robot.call("idle")
    return board


async def fail(robot: Robot) -> None:
    """Kill the executor and the standby until both restart only after a delay."""
    with trio.fail_after(PATIENCE):
        while True:
            found = {each["name"]: each for each in await robot.call("status")}
            children = [found["executor"], found["standby"]]
            if (
                found["executor"]["state"] in {"backoff", "failed"}
                and found["standby"]["state"] != "ready"
            ):
                return
            for each in children:
                if each["state"] in {"starting", "ready"} and each["pid"]:
                    with contextlib.suppress(ProcessLookupError):  # it has ended since
                        os.kill(each["pid"], signal.SIGKILL)
            await trio.sleep(0.01)


@pytest.mark.parametrize(("state", "command"), alternating(STATES))
async def test_stop_commands_do_not_depend_on_the_executor(
    robot: Robot, nursery: trio.Nursery, command: str, state: str
) -> None:
    board = await in_state(robot, nursery, state)
    await robot.call(command)
    stopped = await board.stops()
    await stays_still(board, stopped)
    if command == "estop":
        assert await robot.wait() == 255
    else:
        assert await robot.call("mode") == "idle"
        robot.write("studentcode.py", CODE["drives"])
        await robot.call("auto")
        await board.moves()


@pytest.mark.parametrize(
    ("state", "command"),
    alternating(["spins", "is stopped", "fails to start", "loads code that does not return"]),
)
async def test_rt_call_stops_motion_in_every_state_of_the_executor(
    robot: Robot, nursery: trio.Nursery, command: str, state: str
) -> None:
    board = await in_state(robot, nursery, state)
    done = await robot.command("call", command)
    assert done.returncode == 0, done.stderr
    await stays_still(board, await board.stops())
    if command == "estop":
        assert await robot.wait() == 255
    else:
        assert await robot.call("mode") == "idle"


WRONG_OPTIONS = {
    "a file that is no TOML": ('left motor = "33"\n', {}),
    "an option that there is not": ("exec_timeuot = 1\n", {}),
    "a wrong value": ('log_level = "loud"\n', {}),
    "ports that there are not": ("port_base = 65535\n", {}),
    "another instance": ('instance = "another"\n', {}),
    "an unknown variable": ("", {"RT_TYPO": "1"}),
    "a wrong variable": ("", {"RT_LOG_LEVEL": "loud"}),
    "a variable that names no instance": ("", {"RT_INSTANCE": "../x"}),
}


@pytest.mark.parametrize(("wrong", "command"), alternating(WRONG_OPTIONS))
async def test_rt_call_stops_motion_despite_invalid_options(
    robot: Robot, nursery: trio.Nursery, command: str, wrong: str
) -> None:
    board = await in_state(robot, nursery, "drives")
    text, environment = WRONG_OPTIONS[wrong]
    robot.write("rt.toml", text)
    done = await trio.run_process(
        [*COMMAND, "call", command],
        cwd=robot.folder / "empty",
        env=robot.environment | environment,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{command} was sent to the robot {robot.name!r} anyway" in done.stderr.decode()
    await stays_still(board, await board.stops())
    if command == "estop":
        assert await robot.wait() == 255


async def test_stop_for_a_named_robot_reaches_no_other(robot: Robot, nursery: trio.Nursery) -> None:
    await in_state(robot, nursery, "drives")
    done = await trio.run_process(
        [*COMMAND, "--instance", "another", "call", "idle"],
        cwd=robot.folder / "empty",
        env=robot.environment,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no robot runs as 'another'" in done.stderr.decode()
    assert await robot.call("mode") == "auto"


@pytest.mark.parametrize(
    ("state", "signum"),
    alternating(
        ["drives", "holds the interpreter", "swallows every exception", "is stopped"],
        signal.SIGTERM,
        signal.SIGINT,
    ),
)
async def test_signal_stops_motion_in_every_state_of_the_executor(
    robot: Robot, nursery: trio.Nursery, signum: signal.Signals, state: str
) -> None:
    board = await in_state(robot, nursery, state)
    assert await robot.stop(signum) == 0
    await stays_still(board, await board.stops())


@pytest.mark.parametrize(
    ("function", "command"),
    alternating(["executed", "executed again and again", "executed while the caller waits"]),
)
async def test_stop_commands_end_executed_functions(
    robot: Robot, command: str, function: str
) -> None:
    board = await with_motor(
        robot,
        f"import time\ndef move():\n    {DRIVE}\n    time.sleep({'0.01' if 'again' in function else '60'})\n",
    )
    request = {
        "func": "move",
        "timeout": 0.05 if "again" in function else 60.0,
        "periodic": "again" in function,
    }
    outcome: list[Any] = []

    async def wait() -> None:
        outcome.append(await robot.command("call", "execute", json.dumps([request]), "true"))

    async with trio.open_nursery() as calls:
        if "waits" in function:
            calls.start_soon(wait)
        else:
            await robot.call("execute", [request])
        await board.moves()
        await robot.call(command)
        stopped = await board.stops()
        await stays_still(board, stopped)
    if command == "estop":
        assert await robot.wait() == 255
    else:
        assert await robot.call("mode") == "idle"
    assert all(each.returncode for each in outcome)


TOLD = "was disabled: the robot was stopped"


async def test_idle_stops_a_write_command(robot: Robot) -> None:
    board = await with_motor(robot, "")
    for _ in range(2):  # another command may move it again
        async with commanding(robot, "write", "motor", "duty_cycle=0.7") as command:
            await board.moves()
            await robot.call("idle")
            stopped = await board.stops()
            assert TOLD in await message(command)
            assert await command.wait() == 1
        await stays_still(board, stopped)


async def test_idle_stops_several_write_commands(robot: Robot) -> None:
    boards = [await with_motor(robot, ""), Board(2), Board(3)]
    for other in boards[1:]:
        await robot.plug_pty(other)
    await robot.connected(*boards[1:])
    async with contextlib.AsyncExitStack() as stack:
        commands = [
            await stack.enter_async_context(
                commanding(robot, "write", str(board.uid), f"duty_cycle={value}")
            )
            for board, value in zip(boards, (0.7, -0.7, 0.3), strict=True)
        ]
        for board in boards:
            await board.moves()
        await robot.call("idle")
        for board in boards:
            await board.stops()
        for command in commands:
            assert TOLD in await message(command)
            assert await command.wait() == 1
    for board in boards:
        await stays_still(board, board.pulses[-1][1])


async def test_emergency_stop_stops_a_write_command(robot: Robot) -> None:
    board = await with_motor(robot, "")
    async with commanding(robot, "write", "motor", "duty_cycle=0.7") as command:
        await board.moves()
        await robot.call("estop")
        stopped = await board.stops()
        assert await robot.wait() == 255
        assert await message(command)
        assert await command.wait() == 1
    await stays_still(board, stopped)


async def test_idle_stops_a_suspended_write_command(robot: Robot) -> None:
    board = await with_motor(robot, "")
    async with commanding(robot, "write", "motor", "duty_cycle=0.7") as command:
        await board.moves()
        processes = family(command)
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        await robot.call("idle")
        stopped = await board.stops()
        for process in processes:
            os.kill(process, signal.SIGCONT)
        assert TOLD in await message(command)
        assert await command.wait() == 1
    await stays_still(board, stopped)
