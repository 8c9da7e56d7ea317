"""Robots whose program drives a motor that never stops by itself."""

import contextlib
import re
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import trio
from support.board import Board
from support.robot import PATIENCE, Robot

WATCH_TIME = 1.0
"""How long (s) a test watches a motor that must not move."""
CUT_OFF = "every device (is|was) disabled|took too long"
"""The pattern of log events about late calls of team code."""
DRIVE = 'Robot.write("motor", "duty_cycle", 0.5)'


async def with_motor(robot: Robot, program: str, *flags: str) -> Board:
    """Start an idle robot with a program and a motor, and return the motor."""
    robot.write("studentcode.py", program)
    board = Board()
    await robot.start(*flags)
    await robot.plug_pty(board)
    await robot.connected(board)
    return board


async def driving(robot: Robot, program: str, mode: str = "auto", *flags: str) -> Board:
    """Start a robot whose program drives its motor, and return the motor once it moves."""
    board = await with_motor(robot, program, *flags)
    await robot.call(mode)
    await board.moves()
    return board


async def stays_still(board: Board, since: float | None = None) -> None:
    """Check that a motor does not move for `WATCH_TIME`.

    The check begins at ``since``, by default when the motor has stopped.
    """
    if since is None:
        await board.settles(lambda: not board.moving)
        since = time.monotonic()
    await trio.sleep(WATCH_TIME)
    assert board.moved_since(since) == 0.0


def rested(board: Board) -> bool:
    """Return whether a motor has not moved for `WATCH_TIME`."""
    return not board.moving and board.moved_since(time.monotonic() - WATCH_TIME) == 0.0


def count_cut_offs(robot: Robot) -> int:
    """Return how often the log reports a cut-off; each one disables the devices."""
    return sum(re.search(CUT_OFF, entry["event"]) is not None for entry in robot.log)


async def comes_to_rest(robot: Robot, board: Board) -> None:
    """Wait until a motor has not moved for `WATCH_TIME`.

    It may resume as often as the log reports a cut-off: on a busy machine, a lease may lapse before
    the code reaches what the test is about.
    """
    with trio.move_on_after(PATIENCE):
        while not rested(board):  # noqa: ASYNC110 - no event reports a motor at rest
            await trio.sleep(0.05)
    assert rested(board), (board.pulses, robot.log[-20:])
    assert len(board.pulses) <= 1 + count_cut_offs(robot), (board.pulses, robot.log[-20:])


async def idle(robot: Robot) -> None:
    """Wait until the robot is idle by itself."""
    with trio.fail_after(PATIENCE):
        while await robot.call("mode") != "idle":  # noqa: ASYNC110 - no event reports the mode
            await trio.sleep(0.02)


@contextlib.asynccontextmanager
async def commanding(robot: Robot, verb: str, *arguments: str) -> AsyncIterator[trio.Process]:
    """Run a command of rt until the end of the block."""
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
    """Return the processes of a command: two for the executable."""
    found = [process.pid]
    for pid in found:
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


async def message(process: trio.Process) -> str:
    """Return what a command writes to stderr until it exits."""
    assert process.stderr is not None
    with trio.fail_after(PATIENCE):
        return b"".join([chunk async for chunk in process.stderr]).decode()
