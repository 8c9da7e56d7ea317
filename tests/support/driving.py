"""A robot whose program drives a motor that never stops by itself."""

import contextlib
import re
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import trio
from support.board import Board
from support.robot import PATIENCE, Robot

WHILE = 1.0
"""How long (s) a motor is watched that must not move."""
KEPT_FROM_RUNNING = "every device (is|was) disabled|took too long"
"""What the log says of code whose calls came late."""
DRIVE = 'Robot.write("motor", "duty_cycle", 0.5)'


async def with_motor(robot: Robot, program: str, *flags: str) -> Board:
    """A robot that has a program and a motor, and is idle."""
    robot.write("studentcode.py", program)
    board = Board()
    await robot.start(*flags)
    await robot.plug_pty(board)
    await robot.connected(board)
    return board


async def driving(robot: Robot, program: str, mode: str = "auto", *flags: str) -> Board:
    """A robot whose program drives its motor."""
    board = await with_motor(robot, program, *flags)
    await robot.call(mode)
    await board.moves()
    return board


async def stays_still(board: Board, since: float | None = None) -> None:
    """Watch a motor that does not move, by default from when it has heard what was sent to it until now."""
    if since is None:
        await board.settles(lambda: not board.moving)
        since = time.monotonic()
    await trio.sleep(WHILE)
    assert board.moved_since(since) == 0.0


def rested(board: Board) -> bool:
    """Whether a motor has not moved for as long as motors are watched."""
    return not board.moving and board.moved_since(time.monotonic() - WHILE) == 0.0


def kept_from_running(robot: Robot) -> int:
    """Return how often the log says that a busy machine kept the code from running.

    The devices are disabled each time.
    """
    return sum(re.search(KEPT_FROM_RUNNING, entry["event"]) is not None for entry in robot.log)


async def comes_to_rest(robot: Robot, board: Board) -> None:
    """Wait until a motor that has moved has rested.

    It moves again only as often as the log says that the code was kept from running: on a busy
    machine a lease lapses, and a call is cut off before it has come to what the test is about.
    """
    with trio.move_on_after(PATIENCE):
        while not rested(board):  # noqa: ASYNC110 - that nothing happens tells nobody
            await trio.sleep(0.05)
    assert rested(board), (board.pulses, robot.log[-20:])
    assert len(board.pulses) <= 1 + kept_from_running(robot), (board.pulses, robot.log[-20:])


async def idle(robot: Robot) -> None:
    """Wait until the robot is idle by itself."""
    with trio.fail_after(PATIENCE):
        while await robot.call("mode") != "idle":  # noqa: ASYNC110 - the service answers and tells nobody
            await trio.sleep(0.02)


@contextlib.asynccontextmanager
async def commanding(robot: Robot, verb: str, *arguments: str) -> AsyncIterator[trio.Process]:
    """A command of rt that runs next to the robot; it has ended when the block ends."""
    process = await trio.lowlevel.open_process(
        robot.arguments(verb, *arguments),
        cwd=robot.folder / "empty",
        env=robot.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        with trio.fail_after(PATIENCE, shield=True):
            await process.wait()


def family(process: trio.Process) -> list[int]:
    """The processes of a command: of the executable, which is two, the inner one too."""
    found = [process.pid]
    for pid in found:
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


async def message(process: trio.Process) -> str:
    """What a command that ends writes to stderr."""
    assert process.stderr is not None
    with trio.fail_after(PATIENCE):
        return b"".join([chunk async for chunk in process.stderr]).decode()
