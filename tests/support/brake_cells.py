"""Fault tests: inject one fault while a board moves, and measure how long it still moves.

An action follows 50 ms after the fault. The time is measured at the board.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import trio
from support.robot import PATIENCE, Robot, uid_of

from rt.protocol.datagrams import GamepadState

FAULTS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
TARGETS = {
    "device": ("device",),
    "executor": ("executor",),
    "root": ("root",),
    "device and root": ("device", "root"),
}
ACTIONS = ("nothing", "idle", "estop", "SIGTERM", "SIGINT")
MODES = ("auto", "teleop", "rt write")
BOUNDS = {"kill": 100.0, "stop": 120.0}
"""How long (ms) the board may move after a fault; a stopped process must be detected first."""
ACTION_AFTER = 0.05
SECOND_FAULT = "SIGSTOP of the device process"
SECOND_FAULT_AFTER = 0.085
"""Shortly before the device process detects the lapse of a stopped commander's or root's lease."""
OBSERVED = 0.7
"""Time (s) for which the board is observed after a fault, and after stopped processes continue."""
PROGRAM = """
def autonomous_main():
    Robot.write("motor", "duty_cycle", 0.5)


def teleop_main():
    Robot.write("motor", "duty_cycle", Gamepad.get("joystick_left_y"))
"""
TICK = 0.005
TRIES = 4


class Cell(NamedTuple):
    """One combination of fault, target, action and mode."""

    fault: str
    target: str
    action: str
    mode: str

    @property
    def may_be_driven_again(self) -> bool:
        """Whether a living commander may drive the restarted device process."""
        return self.target == "device" and self.action == "nothing" and self.mode != "rt write"

    @property
    def counts_from_action(self) -> bool:
        """Whether the fault leaves the commander alive, so that time counts from the action."""
        return self.target == "executor" and self.mode == "rt write"


class Outcome(NamedTuple):
    """The result of a cell.

    Attributes:
        stopped_after: Time (ms) from the fault (see `Cell.counts_from_action`) to the end of
            motion; infinite if it did not end.
        starved: The longest time (ms) that this process was delayed by the scheduler.
        changes: Times (ms from the fault) and speeds of the commands that the board received.
        log: The log of the robot.
    """

    stopped_after: float
    starved: float
    changes: list[tuple[float, float]]
    log: list[dict[str, Any]]

    def is_late(self, bound: float) -> bool:
        """Return whether the board moved longer than a bound (ms) plus the scheduling delay."""
        return self.stopped_after > bound + self.starved


ALL = [
    cell
    for cell in (Cell(f, t, a, m) for t in TARGETS for f in FAULTS for a in ACTIONS for m in MODES)
    if (cell.target, cell.action, cell.mode)
    != ("executor", "nothing", "rt write")  # nothing would stop the commander
]
SAMPLE = [
    Cell(list(FAULTS)[(i + j) % 2], target, action, MODES[(i + j) % 3])
    for i, target in enumerate(TARGETS)
    for j, action in enumerate(ACTIONS)
]
"""Cells that contain every pair of values at least once."""
SAMPLE += [
    cell for cell in (Cell("stop", "root", "nothing", "teleop"),) if cell not in SAMPLE
]  # the driver continues

TWO_FAULTS = [
    Cell("stop", target, SECOND_FAULT, mode)
    for target in ("executor", "root")
    for mode in ("auto", "teleop")
]


class Board:
    """The board's process and its output."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self.changes: list[tuple[int, float]] = []
        self._changed = trio.Event()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        async for chunk in self._process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                stamp, speed = line.split()
                self.changes.append((int(stamp), float(speed)))
            self._changed.set()
            self._changed = trio.Event()

    async def moves(self, count: int) -> bool:
        """Wait until the board was commanded to move so many times.

        Returns:
            False if the commander ended before, on a busy machine.
        """
        with trio.move_on_after(PATIENCE):
            while sum(speed != 0 for _, speed in self.changes) < count:
                await self._changed.wait()
            return True
        return False

    async def still(self) -> None:
        """Wait until the board does not move."""
        with trio.fail_after(PATIENCE):
            while self.changes[-1:] and self.changes[-1][1] != 0:
                await self._changed.wait()

    def moved_at(self, moment: int) -> bool:
        """Return whether the board moved at a time (ns)."""
        before = [speed for stamp, speed in self.changes if stamp <= moment]
        return before[-1:] not in ([], [0.0])

    def ends(self, since: int) -> list[float]:
        """Return the end (ns) of each motion that continued after a time; infinite if none."""
        moving = False
        ends: list[float] = []
        for stamp, speed in self.changes:
            if moving and speed == 0 and stamp > since:
                ends.append(stamp)
            moving = speed != 0
        return [*ends, math.inf] if moving else ends


@contextlib.asynccontextmanager
async def open_board(robot: Robot) -> AsyncIterator[Board]:
    uid = uid_of("polar-bear")
    script = Path(__file__).with_name("motion_board.py")
    process = await trio.lowlevel.open_process(
        [sys.executable, str(script), str(robot.folder / f"tty{uid}"), str(uid)],
        env=os.environ | {"PYTHONPATH": str(script.parents[2])},
        stdout=subprocess.PIPE,
    )
    board = Board(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(board.listen)
            yield board
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


class Starvation:
    """How late this process is scheduled."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            due = trio.current_time() + TICK
            await trio.sleep_until(due)
            self.longest = max(self.longest, trio.current_time() - due)


async def run(cell: Cell) -> Outcome:
    """Run one cell with its own robot.

    The cell is repeated if a busy machine disabled the board before the fault.

    Raises:
        AssertionError: The robot left processes behind, or the board never moved.
    """
    for _ in range(TRIES):
        if (outcome := await _run_once(cell)) is not None:
            return outcome
    raise AssertionError(f"the board did not move at the fault in {TRIES} tries")


async def _run_once(cell: Cell) -> Outcome | None:
    async with trio.open_nursery() as nursery:
        robot = Robot(Path(tempfile.mkdtemp(prefix="rt-")), nursery)
        robot.write("studentcode.py", PROGRAM)
        try:
            async with open_board(robot) as board:
                await robot.start()
                await robot.logged("device connected", uid=str(uid_of("polar-bear")))
                outcome = await _run(cell, robot, board, nursery)
                await _end(robot)
            left = robot.processes()
        finally:
            robot.clean_up()
        nursery.cancel_scope.cancel()
    assert left == [], f"the robot left processes behind: {left}"
    return outcome


async def _run(cell: Cell, robot: Robot, board: Board, nursery: trio.Nursery) -> Outcome | None:
    match cell.mode:
        case "auto":
            await robot.call("auto")
        case "teleop":
            nursery.start_soon(robot.drive, GamepadState(0.0, 0.5, 0.0, 0.0, 0))
            await robot.call("teleop")
        case _:
            nursery.start_soon(robot.command, "write", "motor", "duty_cycle=0.5")
    if not await board.moves(1 if cell.mode == "rt write" else 5):
        return None
    root = robot.root()
    victims = [root if target == "root" else robot.child(target) for target in TARGETS[cell.target]]
    others = [robot.child("device")] if cell.action == SECOND_FAULT else []
    starvation = Starvation()
    nursery.start_soon(starvation.watch)
    await trio.sleep(10 * TICK)
    fault = time.monotonic_ns()
    began = trio.current_time()
    for pid in victims:
        os.kill(pid, FAULTS[cell.fault])
    await trio.sleep_until(
        began + (SECOND_FAULT_AFTER if cell.action == SECOND_FAULT else ACTION_AFTER)
    )
    acted = time.monotonic_ns()
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    _act(cell.action, robot, root, nursery)
    await trio.sleep_until(began + OBSERVED)
    if cell.fault == "stop":
        for pid in victims + others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await trio.sleep(OBSERVED)
    ends = board.ends(fault)
    if not board.moved_at(fault):
        return None
    end = ends[0] if cell.may_be_driven_again else ends[-1]
    start = acted if cell.counts_from_action else fault
    changes = [((stamp - fault) / 1e6, speed) for stamp, speed in board.changes]
    return Outcome((end - start) / 1e6, starvation.longest * 1e3, changes, list(robot.log))


def _act(action: str, robot: Robot, root: int, nursery: trio.Nursery) -> None:
    if action in {"idle", "estop"}:
        nursery.start_soon(_call, robot, action)
    elif action in {"SIGTERM", "SIGINT"}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(root, signal.Signals[action])


async def _call(robot: Robot, method: str) -> None:
    """Call a stop method; a robot with a dead or stopped root does not answer."""
    with trio.move_on_after(2 * OBSERVED), contextlib.suppress(Exception):
        await robot.call(method)


async def _end(robot: Robot) -> None:
    """Stop the robot, and wait until none of its processes is left."""
    process = robot.process
    assert process is not None
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    await robot.wait()
    await robot.wait_all_exited()


def describe(cell: Cell, outcome: Outcome, round_number: int) -> dict[str, Any]:
    return {
        **cell._asdict(),
        "round": round_number,
        "ms": outcome.stopped_after,
        "starved": outcome.starved,
    }
