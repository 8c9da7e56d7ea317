"""What moves stops with what commanded it: measured at a motor that never stops by itself."""

import contextlib
import os
import signal
import time
from typing import Any

import pytest
import trio
from support.board import Board
from support.robot import PATIENCE, Robot

from rt.protocol.message import DevWrite

pytestmark = pytest.mark.system

WHILE = 1.0
"""How long (s) a motor is watched that must not move."""
CUTOFFS = 3


async def driving(robot: Robot, program: str, mode: str = "auto", *flags: str) -> Board:
    """A robot whose program drives its motor."""
    robot.write("studentcode.py", program)
    board = Board()
    await robot.start(*flags)
    await robot.plug_pty(board)
    await robot.connected(board)
    await robot.call(mode)
    await board.moves()
    return board


async def stays_still(board: Board, since: float) -> None:
    await trio.sleep(WHILE)
    assert board.moved_since(since) == 0.0


async def idle(robot: Robot) -> None:
    """Wait until the robot is idle by itself."""
    with trio.fail_after(PATIENCE):
        while await robot.call("mode") != "idle":  # noqa: ASYNC110 - the service answers and tells nobody
            await trio.sleep(0.02)


DRIVE = 'Robot.write("motor", "duty_cycle", 0.5)'


@pytest.mark.parametrize(
    "ending",
    [
        "1 / 0",
        "raise SystemExit",
        "raise KeyboardInterrupt",
        "return",
        "await Actions.sleep(0.2)",
        "return await inner()",
    ],
)
async def test_a_mode_ends_with_its_last_function_and_its_motors_stop(
    robot: Robot, nursery: trio.Nursery, ending: str
) -> None:
    await driving(
        robot,
        f"""
async def inner():
    raise ValueError("inner")

async def act():
    {DRIVE}
    await Actions.sleep(0.3)
    {ending}

def autonomous_setup():
    Actions.run(act)
""",
    )
    await robot.said("mode ended", mode="auto")
    assert await robot.call("mode") == "idle"
    nursery.cancel_scope.cancel()


async def test_an_action_that_fails_stops_what_it_moved_and_main_drives_on(robot: Robot, nursery: trio.Nursery) -> None:
    board = await driving(
        robot,
        f"""
async def act():
    await Actions.sleep(0.3)
    raise ValueError("act")

def autonomous_setup():
    Actions.run(act)

def autonomous_main():
    {DRIVE}
""",
    )
    await robot.said("ValueError: act")
    await board.settles(lambda: len(board.pulses) >= 2)
    assert board.pulses[0][1] is not None
    assert await robot.call("mode") == "auto"
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("main", ["setup alone", "periodic"])
async def test_a_setup_that_fails_stops_what_it_moved(robot: Robot, nursery: trio.Nursery, main: str) -> None:
    board = await driving(
        robot,
        f"""
import time
def autonomous_setup():
    {DRIVE}
    time.sleep(0.2)
    1 / 0
"""
        + ("" if main == "setup alone" else "def autonomous_main():\n    pass\n"),
    )
    stopped = await board.stops()
    await robot.said("mode ended", mode="auto")
    await stays_still(board, stopped)
    nursery.cancel_scope.cancel()


PULSES = {
    "swallows its limit": """
import time
def autonomous_main():
    end = time.monotonic() + 0.15
    while time.monotonic() < end:
        try:
            DRIVE
            time.sleep(1)
        except BaseException:
            pass
""",
    "holds the interpreter": """
def autonomous_main():
    DRIVE
    sum(range(2 * 10**7))
""",
    "prints without end": """
def autonomous_main():
    DRIVE
    print("x" * 50_000_000)
""",
    "spins in many threads": """
import threading
def spin():
    while True:
        pass
def autonomous_main():
    DRIVE
    if threading.active_count() < 60:
        threading.Thread(target=spin, daemon=True).start()
""",
    "blocks the event loop": """
import time
async def act():
    while True:
        time.sleep(0.2)
        await Actions.sleep(0.1)
def autonomous_setup():
    Actions.run(act)
def autonomous_main():
    DRIVE
""",
}


@pytest.mark.parametrize("program", list(PULSES))
async def test_code_that_is_cut_off_again_and_again_comes_to_rest(
    robot: Robot, nursery: trio.Nursery, program: str
) -> None:
    code = PULSES[program].replace("DRIVE", DRIVE)
    board = await driving(robot, code, "auto", "--exec-cutoffs", str(CUTOFFS))
    # A main that is late at each call is on trial until one ends in time; all else has ended its mode.
    with trio.fail_after(PATIENCE):
        while await robot.call("mode") != "idle" and not on_trial(robot):  # noqa: ASYNC110 - the service tells nobody
            await trio.sleep(0.02)
    stopped = await board.stops()
    assert len(board.pulses) <= CUTOFFS + 1
    if not on_trial(robot):
        ended = await robot.said("mode ended", mode="auto")
        assert "start the mode again" in ended["reason"]
    await stays_still(board, stopped)
    nursery.cancel_scope.cancel()


def on_trial(robot: Robot) -> bool:
    return any("until a call of it ends in time" in entry["event"] for entry in robot.log)


@pytest.mark.parametrize("victim", ["executor", "root", "executor and device"])
async def test_a_commander_that_was_stopped_has_to_start_over(robot: Robot, nursery: trio.Nursery, victim: str) -> None:
    board = await driving(robot, f"def autonomous_main():\n    {DRIVE}\n")
    processes = {
        "executor": [robot.child("executor")],
        "root": [robot.root()],
        "executor and device": [robot.child("executor"), robot.child("device")],
    }[victim]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    stopped = await board.stops()
    await trio.sleep(WHILE)
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # the device process was killed by the brake
            os.kill(process, signal.SIGCONT)
    await idle(robot)
    await stays_still(board, stopped)
    await robot.call("auto")
    await board.settles(lambda: len(board.pulses) >= 2)
    nursery.cancel_scope.cancel()


LEAKS: dict[str, str] = {
    "a thread": f"""
import threading, time
def stray():
    while True:
        try:
            {DRIVE}
        except BaseException:
            pass
        time.sleep(0.01)
def autonomous_setup():
    threading.Thread(target=stray, daemon=True).start()
def autonomous_main():
    {DRIVE}
""",
    "a process": f"""
import os, time
def autonomous_setup():
    if os.fork() == 0:
        os.setsid()
        while True:
            try:
                {DRIVE}
            except BaseException:
                pass
            time.sleep(0.01)
def autonomous_main():
    {DRIVE}
""",
    "a buffer in a forked process": f"""
import gc, os, time
def autonomous_setup():
    {DRIVE}
    buffers = [each for each in gc.get_objects() if type(each).__name__ == "polar-bear"]
    if os.fork() == 0:
        while True:
            for buffer in buffers:
                buffer.write("duty_cycle", 0.9)
            time.sleep(0.01)
def autonomous_main():
    {DRIVE}
""",
    "a replaced function": f"""
import time, signal
def autonomous_main():
    {DRIVE}
    now = time.monotonic()
    time.monotonic = lambda: now
    time.sleep = lambda _seconds: None
    signal.setitimer = lambda *_: None
""",
}
QUIET = "def teleop_main():\n    print('quiet')\n"


@pytest.mark.parametrize("leak", list(LEAKS))
async def test_nothing_of_one_run_drives_in_the_next(robot: Robot, nursery: trio.Nursery, leak: str) -> None:
    board = await driving(robot, LEAKS[leak])
    robot.write("studentcode.py", QUIET)
    await robot.call("teleop")
    stopped = await board.stops()
    await robot.said("quiet", count=10)
    await stays_still(board, stopped)
    assert set(written(board)) <= {0.5}, "a fork wrote"
    nursery.cancel_scope.cancel()


def written(board: Board) -> list[Any]:
    """What the motor was told, in order."""
    unpack = board.emulated.peripheral.unpack
    values = [unpack(each.params, each.data) for each in board.messages if isinstance(each, DevWrite)]
    return [round(each["duty_cycle"], 3) for each in values if "duty_cycle" in each]


HANGS = {
    "a frozen clock": """
import time
def autonomous_main():
    DRIVE
    now = time.monotonic()
    time.monotonic = lambda: now
    hang()
""",
    "a removed timer": """
import signal
def autonomous_main():
    DRIVE
    signal.setitimer = lambda *_: None
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    hang()
""",
    "a grant of its own": """
import gc
def autonomous_main():
    DRIVE
    for each in gc.get_objects():
        if type(each).__name__ == "LeaseKeeper":
            each.grant(1e18)
    hang()
""",
    "a patched interpreter": """
import sys, threading
def autonomous_main():
    DRIVE
    sys.setswitchinterval(100)
    threading.settrace(None)
    hang()
""",
}


@pytest.mark.parametrize("trick", list(HANGS))
async def test_code_that_hangs_stops_whatever_it_has_replaced(robot: Robot, nursery: trio.Nursery, trick: str) -> None:
    hang = """
def hang():
    while True:
        try:
            for _ in range(1000):
                pass
        except BaseException:
            pass
"""
    board = await driving(robot, hang + HANGS[trick].replace("DRIVE", DRIVE))
    stopped = await board.stops()
    assert await robot.call("mode") in {"auto", "idle"}
    await stays_still(board, stopped)
    await robot.call("idle")
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("mode", ["'x'", "2", "None"])
async def test_team_code_does_not_decide_what_mode_the_robot_says_it_is_in(
    robot: Robot, nursery: trio.Nursery, mode: str
) -> None:
    await driving(
        robot,
        f"""
def autonomous_main():
    {DRIVE}
    try:
        Field.mode = {mode}
    except AttributeError:
        print("read only")
""",
    )
    await robot.said("read only", count=3)
    assert await robot.call("mode") == "auto"
    nursery.cancel_scope.cancel()


SPIN = f"""
async def act():
    while True:
        {DRIVE}
def autonomous_setup():
    Actions.run(act)
"""
HOLD = f"""
def autonomous_main():
    {DRIVE}
    sum(range(10**9))
"""


@pytest.mark.parametrize("command", ["idle", "estop"])
@pytest.mark.parametrize("state", ["spins", "holds the interpreter", "is stopped", "is starting", "has nothing to do"])
async def test_stop_commands_do_not_depend_on_the_executor(
    robot: Robot, nursery: trio.Nursery, command: str, state: str
) -> None:
    drive = f"def autonomous_main():\n    {DRIVE}\n"
    board = await driving(robot, {"spins": SPIN, "holds the interpreter": HOLD}.get(state, drive))
    process = robot.child("executor")
    if state == "is stopped":
        os.kill(process, signal.SIGSTOP)
    elif state == "is starting":
        os.kill(process, signal.SIGKILL)
    elif state == "has nothing to do":
        await robot.call("idle")
    asked = time.monotonic()
    await robot.call(command)
    stopped = await board.stops()
    assert board.moved_since(max(asked, stopped)) == 0.0
    if command == "estop":
        assert await robot.wait() == 255
    else:
        assert await robot.call("mode") == "idle"
        await robot.call("auto")
        await board.moves()
    nursery.cancel_scope.cancel()


async def test_idle_ends_what_a_command_moves(robot: Robot, nursery: trio.Nursery) -> None:
    board = Board()
    await robot.start()
    await robot.plug_pty(board)
    await robot.connected(board)
    done: list[Any] = []

    async def write() -> None:
        done.append(await robot.command("write", "motor", "duty_cycle=0.7"))

    async with trio.open_nursery() as writing:
        writing.start_soon(write)
        await board.moves()
        await robot.call("idle")
        stopped = await board.stops()
    assert done[0].returncode == 1
    assert "was disabled: the robot was told to stop" in done[0].stderr
    await stays_still(board, stopped)
    nursery.cancel_scope.cancel()


LIFELINES = {
    "replaced": "os.dup2(os.open('/dev/null', os.O_RDWR), lifeline)",
    "closed": "os.close(lifeline)",
    "every descriptor closed": "os.closerange(3, 150)",
    "signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
}


@pytest.mark.parametrize("trick", list(LIFELINES))
async def test_team_code_does_not_outlive_the_root(robot: Robot, nursery: trio.Nursery, trick: str) -> None:
    board = await driving(
        robot,
        f"""
import os, signal, sys, time
lifeline = int(sys.orig_argv[-2])
def autonomous_setup():
    {DRIVE}
    time.sleep(0.3)
    {LIFELINES[trick]}
    print("done")
def autonomous_main():
    {DRIVE}
""",
    )
    executor = robot.child("executor")
    os.kill(robot.root(), signal.SIGKILL)
    stopped = await board.stops()
    await robot.until_ended(executor)
    await robot.until_gone()
    await stays_still(board, stopped)
    await robot.wait()
    await robot.start()  # what a killed robot leaves is removed by the next one
    await robot.stop()
    nursery.cancel_scope.cancel()
