"""Motion ends with its commander, measured at a motor that never stops by itself."""

import contextlib
import os
import signal
from typing import Any

import pytest
import trio
from support.board import Board
from support.driving import (
    DRIVE,
    WATCH_TIME,
    comes_to_rest,
    commanding,
    driving,
    family,
    idle,
    message,
    rested,
    stays_still,
    with_motor,
)
from support.robot import PATIENCE, Robot

from rt.protocol.message import DevWrite

pytestmark = pytest.mark.system

CUTOFFS = 3
SHORT_STOP = 0.15
"""How long (s) a process is stopped: its lease lapses, but its mode does not end at once."""


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
async def test_mode_and_motion_end_with_the_last_function(robot: Robot, ending: str) -> None:
    board = await driving(
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
    await robot.logged("mode ended", mode="auto")
    assert await robot.call("mode") == "idle"
    await comes_to_rest(robot, board)


RUN_OUT: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "autonomous setup alone": (
        f"import time\ndef autonomous_setup():\n    {DRIVE}\n    time.sleep(0.2)\n",
        "auto",
        (),
    ),
    "teleop setup alone": (
        f"import time\ndef teleop_setup():\n    {DRIVE}\n    time.sleep(0.2)\n",
        "teleop",
        (),
    ),
    "a function that is executed": (
        f"import time\ndef move():\n    {DRIVE}\n    time.sleep(0.2)\n",
        "execute",
        ([{"func": "move"}],),
    ),
    "a setup whose thread drives on": (
        f"""
import threading, time
def drive():
    while True:
        {DRIVE}
        time.sleep(0.01)
def autonomous_setup():
    threading.Thread(target=drive, daemon=True).start()
    time.sleep(0.2)
""",
        "auto",
        (),
    ),
    "actions that end one after the other": (
        f"""
async def second():
    {DRIVE}
    await Actions.sleep(0.2)
async def first():
    {DRIVE}
    Actions.run(second)
def autonomous_setup():
    Actions.run(first)
""",
        "auto",
        (),
    ),
}


@pytest.mark.parametrize("code", list(RUN_OUT))
async def test_mode_without_running_function_ends_and_motors_stop(robot: Robot, code: str) -> None:
    program, method, arguments = RUN_OUT[code]
    board = await with_motor(robot, program)
    await robot.call(method, *arguments)
    await board.settles(lambda: bool(board.pulses))
    await robot.logged("mode ended")
    assert await robot.call("mode") == "idle"
    await comes_to_rest(robot, board)


FAILURES: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "main": (
        f"def autonomous_main():\n    {DRIVE}\n    if time.monotonic() > END: 1 / 0\n",
        "auto",
        (),
    ),
    "main that exits": (
        f"def teleop_main():\n    {DRIVE}\n    if time.monotonic() > END: sys.exit()\n",
        "teleop",
        (),
    ),
    "a function that is executed": (
        f"def move():\n    {DRIVE}\n    time.sleep(0.3)\n    1 / 0\n",
        "execute",
        ([{"func": "move"}],),
    ),
    "a thread": (
        f"""
def drive():
    {DRIVE}
    time.sleep(0.3)
    1 / 0
def autonomous_setup():
    threading.Thread(target=drive, name="drive").start()
def autonomous_main():
    pass
""",
        "auto",
        (),
    ),
    "a thread that exits": (
        f"""
def drive():
    {DRIVE}
    time.sleep(0.3)
    sys.exit()
def autonomous_setup():
    threading.Thread(target=drive, daemon=True).start()
def autonomous_main():
    pass
""",
        "auto",
        (),
    ),
    "a timer": (
        f"""
def drive():
    raise ValueError("drive")
def autonomous_setup():
    threading.Timer(0.3, drive).start()
    {DRIVE}
def autonomous_main():
    pass
""",
        "auto",
        (),
    ),
    "a signal handler": (
        f"""
import os, signal
def drive(*_):
    raise ValueError("drive")
def autonomous_setup():
    {DRIVE}
    signal.signal(signal.SIGUSR1, drive)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
def autonomous_main():
    pass
""",
        "auto",
        (),
    ),
    "a task of an action": (
        f"""
import trio
async def inner():
    {DRIVE}
    await trio.sleep(0.3)
    1 / 0
async def outer():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inner)
def autonomous_setup():
    Actions.run(outer)
def autonomous_main():
    pass
""",
        "auto",
        (),
    ),
}


@pytest.mark.parametrize("code", list(FAILURES))
async def test_failed_code_stops_the_motors_that_it_moved(robot: Robot, code: str) -> None:
    program, method, arguments = FAILURES[code]
    board = await with_motor(
        robot, f"import sys, threading, time\nEND = time.monotonic() + 0.5\n{program}"
    )
    await robot.call(method, *arguments)
    await board.settles(lambda: bool(board.pulses))
    await comes_to_rest(robot, board)
    if "exit" not in code:
        entry = await robot.logged(
            "ZeroDivisionError" if "1 / 0" in program else "ValueError: drive"
        )
        assert entry["file"].endswith("studentcode.py")
        assert entry["line"] > 0


@pytest.mark.parametrize("failing", ["an action", "a thread"])
async def test_failed_action_or_thread_stops_only_its_own_motor(robot: Robot, failing: str) -> None:
    other = Board(2)
    begin = (
        "Actions.run(act)" if failing == "an action" else "threading.Thread(target=fail).start()"
    )
    board = await with_motor(
        robot,
        f"""
import threading, time
async def act():
    Robot.write({other.uid}, "duty_cycle", 0.7)
    await Actions.sleep(0.3)
    1 / 0

def fail():
    Robot.write({other.uid}, "duty_cycle", 0.7)
    time.sleep(0.3)
    1 / 0

def autonomous_setup():
    {begin}

def autonomous_main():
    {DRIVE}
""",
    )
    await robot.plug_pty(other)
    await robot.connected(other)
    await robot.call("auto")
    await other.moves()
    await robot.logged("ZeroDivisionError")
    stopped = await other.stops()
    await board.settles(lambda: len(board.pulses) >= 2 and board.moving)
    await stays_still(other, stopped)
    assert await robot.call("mode") == "auto"


async def test_main_continues_to_drive_after_an_action_fails(robot: Robot) -> None:
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
    await robot.logged("ValueError: act")
    await board.settles(lambda: len(board.pulses) >= 2)
    assert board.pulses[0][1] is not None
    assert await robot.call("mode") == "auto"


@pytest.mark.parametrize("main", ["setup alone", "periodic"])
async def test_failed_setup_ends_the_mode_and_motors_stop(robot: Robot, main: str) -> None:
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
    await robot.logged("mode ended", mode="auto")
    await comes_to_rest(robot, board)


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
    "fails again and again": """
calls = 0
def autonomous_main():
    global calls
    calls += 1
    DRIVE
    if calls % 3 == 0:
        1 / 0
""",
    "starts an action that fails": """
async def act():
    DRIVE
    await Actions.sleep(0.1)
    1 / 0
def autonomous_main():
    if not Actions.is_running(act):
        Actions.run(act)
""",
    "starts a thread that fails": """
import threading, time
def drive():
    DRIVE
    time.sleep(0.1)
    1 / 0
def autonomous_main():
    if not any(each.name == "drive" for each in threading.enumerate()):
        threading.Thread(target=drive, name="drive").start()
""",
    "matches a pattern for long": """
import re
def autonomous_main():
    DRIVE
    re.match("(a*)*b", "a" * 22)
""",
    "blocks the event loop and moves": """
import time
async def act():
    while True:
        DRIVE
        time.sleep(0.3)
        await Actions.sleep(0.05)
def autonomous_setup():
    Actions.run(act)
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
async def test_repeated_cut_offs_end_motion(robot: Robot, program: str) -> None:
    code = PULSES[program].replace("DRIVE", DRIVE)
    board = await driving(robot, code, "auto", "--exec-cutoffs", str(CUTOFFS))
    # A main that is always late is on probation, unless a call ends in time: then it moves again,
    # and is cut off again. All other programs end their mode.
    with trio.fail_after(PATIENCE):
        while await robot.call("mode") != "idle" and not (on_probation(robot) and rested(board)):  # noqa: ASYNC110
            await trio.sleep(0.02)
    stopped = await board.stops()
    if await robot.call("mode") == "idle":
        ended = await robot.logged("mode ended", mode="auto")
        assert "start the mode again" in ended["reason"]
        await stays_still(board, stopped)
    assert len(board.pulses) <= CUTOFFS + 1


def on_probation(robot: Robot) -> bool:
    return any("until a call returns in time" in entry["event"] for entry in robot.log)


@pytest.mark.parametrize("victim", ["executor", "root", "executor and device"])
async def test_stopped_commander_does_not_resume_motion(robot: Robot, victim: str) -> None:
    board = await driving(robot, f"def autonomous_main():\n    {DRIVE}\n")
    processes = {
        "executor": [robot.child("executor")],
        "root": [robot.root()],
        "executor and device": [robot.child("executor"), robot.child("device")],
    }[victim]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    stopped = await board.stops()
    await trio.sleep(WATCH_TIME)
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # the device process was killed by the brake
            os.kill(process, signal.SIGCONT)
    await idle(robot)
    await stays_still(board, stopped)
    await robot.call("auto")
    await board.settles(lambda: len(board.pulses) >= 2)


@pytest.mark.parametrize("victim", ["executor", "root"])
async def test_repeatedly_stopped_commander_ends_its_mode(robot: Robot, victim: str) -> None:
    board = await driving(
        robot, f"def autonomous_main():\n    {DRIVE}\n", "auto", "--exec-cutoffs", str(CUTOFFS)
    )
    process = robot.child("executor") if victim == "executor" else robot.root()
    with trio.fail_after(PATIENCE):
        while await robot.call("mode") != "idle":
            os.kill(process, signal.SIGSTOP)
            await trio.sleep(SHORT_STOP)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
            await trio.sleep(2 * SHORT_STOP)
    stopped = await board.stops()
    assert len(board.pulses) <= CUTOFFS
    await robot.logged("mode ended", mode="auto")
    await stays_still(board, stopped)


async def test_stopped_write_command_moves_nothing_when_continued(robot: Robot) -> None:
    board = await with_motor(robot, "")
    async with commanding(robot, "write", "motor", "duty_cycle=0.7") as command:
        await board.moves()
        processes = family(command)
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        stopped = await board.stops()
        for process in processes:
            os.kill(process, signal.SIGCONT)
        assert "motor was disabled" in await message(command)
        assert await command.wait() == 1
    await stays_still(board, stopped)


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
    assert buffers
    if os.fork() == 0:
        while True:
            for buffer in buffers:
                buffer.write("duty_cycle", 0.9)
            time.sleep(0.01)
def autonomous_main():
    {DRIVE}
""",
    "a process of multiprocessing": f"""
import multiprocessing, time
def stray():
    while True:
        try:
            {DRIVE.replace("0.5", "0.9")}
        except BaseException:
            pass
        time.sleep(0.01)
def autonomous_setup():
    multiprocessing.get_context("fork").Process(target=stray).start()
def autonomous_main():
    {DRIVE}
""",
    "a process forked by C code": f"""
import ctypes, time
def autonomous_setup():
    {DRIVE}
    if ctypes.CDLL(None).fork() == 0:
        while True:
            try:
                {DRIVE.replace("0.5", "0.9")}
            except BaseException:
                pass
            time.sleep(0.01)
def autonomous_main():
    {DRIVE}
""",
    "a signal handler with a timer": f"""
import signal
import time
def stray(*_):
    {DRIVE}
def autonomous_setup():
    signal.signal(signal.SIGPROF, stray)
    signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)
def autonomous_main():
    {DRIVE}
""",
    "what runs at the exit": f"""
import atexit, time
@atexit.register
def stray():
    while True:
        {DRIVE}
        time.sleep(0.01)
def autonomous_main():
    {DRIVE}
""",
    "an action that swallows its cancel": f"""
async def stray():
    while True:
        try:
            {DRIVE}
            await Actions.sleep(0.01)
        except BaseException:
            pass
def autonomous_setup():
    Actions.run(stray)
def autonomous_main():
    pass
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
async def test_leftovers_of_one_run_do_not_drive_in_the_next(robot: Robot, leak: str) -> None:
    board = await driving(robot, LEAKS[leak])
    robot.write("studentcode.py", QUIET)
    await robot.call("teleop")
    stopped = await board.stops()
    await robot.logged("quiet", count=10)
    await stays_still(board, stopped)
    assert set(written(board)) <= {0.5}, "a fork wrote"


BACK = 'def teleop_main():\n    Robot.write("motor", "duty_cycle", -0.25)\n'


@pytest.mark.parametrize("leak", list(LEAKS)[::2])
async def test_leftovers_of_one_run_do_not_mix_with_the_next(robot: Robot, leak: str) -> None:
    board = await driving(robot, LEAKS[leak])
    robot.write("studentcode.py", BACK)
    await robot.call("teleop")
    since = await board.written(duty_cycle=-0.25)
    await trio.sleep(WATCH_TIME)
    assert set(written(board, since - 1)) == {-0.25}
    await robot.call("idle")
    await stays_still(board, await board.stops())


def written(board: Board, since: int = 0) -> list[Any]:
    """Return the duty cycles written to the motor, in order."""
    unpack = board.emulated.peripheral.unpack
    values = [
        unpack(each.params, each.data)
        for each in board.messages[since:]
        if isinstance(each, DevWrite)
    ]
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
import time
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
    "a permission of its own": """
import gc
def autonomous_main():
    DRIVE
    keeper = next(each for each in gc.get_objects() if type(each).__name__ == "LeaseKeeper")
    keeper.unseal()
    keeper.grant(1e18)
    hang()
""",
    "grants of a thread": """
import gc, threading
def grant():
    keeper = next(each for each in gc.get_objects() if type(each).__name__ == "LeaseKeeper")
    while True:
        keeper.grant(1e18)
        keeper.grant()
def autonomous_main():
    threading.Thread(target=grant, daemon=True).start()
    DRIVE
    hang()
""",
    "every clock frozen": """
import time
def autonomous_main():
    DRIVE
    for name in ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns", "process_time"):
        now = getattr(time, name)()
        setattr(time, name, lambda now=now: now)
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    time.clock_gettime_ns = lambda _clock: now
    hang()
""",
    "a replaced event loop": """
import time, trio, queue, threading
def autonomous_main():
    DRIVE
    trio.current_time = lambda: 0.0
    trio.move_on_after = lambda _seconds: None
    queue.SimpleQueue = threading.Event = threading.Lock = None
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
async def test_hanging_code_stops_despite_replaced_functions(robot: Robot, trick: str) -> None:
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
    await robot.logged_one_of("does not return", "kept from running", "holds the GIL")
    await comes_to_rest(robot, board)
    assert await robot.call("mode") in {"auto", "idle"}
    await robot.call("idle")


REPORTS = {
    "a mode": "Field.mode = 'x'",
    "a mode by its number": "Field.mode = 2",
    "no mode": "Field.mode = None",
    "an alliance": "Field.alliance = 'x'",
    "a slot": "object.__setattr__(Field, 'mode', 'x')",
    "the class": "type(Field).mode = 'idle'",
    "the state": "[setattr(each, 'mode', 'x') for each in gc.get_objects() if type(each).__name__ == 'RunState']",
}


@pytest.mark.parametrize("what", list(REPORTS))
async def test_team_code_cannot_change_the_reported_mode(robot: Robot, what: str) -> None:
    board = await driving(
        robot,
        f"""
import gc
def autonomous_main():
    try:
        {REPORTS[what]}
    except (AttributeError, TypeError):
        pass
    {DRIVE}
""",
    )
    executor = robot.child("executor")
    assert await robot.call("mode") == "auto"
    os.kill(executor, 0)
    await robot.call("idle")
    assert await robot.call("mode") == "idle"
    await stays_still(board)


LIFELINES = {
    "replaced": "os.dup2(os.open('/dev/null', os.O_RDWR), lifeline)",
    "closed": "os.close(lifeline)",
    "every descriptor closed": "os.closerange(3, 150)",
    "signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "all descriptors closed": "os.closerange(3, 1 << 16)",
    "all closed by a program that hangs": "os.closerange(3, 1 << 16); hang()",
    "owner removed": "fcntl.fcntl(lifeline, fcntl.F_SETOWN, 0)",
    "closed by a program that hangs": "os.closerange(3, 150); hang()",
    "owner removed by a program that hangs": "fcntl.fcntl(lifeline, fcntl.F_SETOWN, 0); hang()",
    "replaced by a program that hangs": "os.dup2(os.open('/dev/null', os.O_RDWR), lifeline); hang()",
}


@pytest.mark.parametrize("trick", list(LIFELINES))
async def test_team_code_does_not_outlive_the_root(robot: Robot, trick: str) -> None:
    board = await driving(
        robot,
        f"""
import fcntl, os, signal, sys, time
lifeline = int(sys.orig_argv[-2])
def hang():
    print("hangs")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
def autonomous_setup():
    {DRIVE}
    time.sleep(0.3)
    {LIFELINES[trick]}
def autonomous_main():
    {DRIVE}
""",
    )
    executor = robot.child("executor")
    os.kill(robot.root(), signal.SIGKILL)
    stopped = await board.stops()
    await robot.wait_exited(executor)
    await robot.wait_all_exited()
    await stays_still(board, stopped)
    await robot.wait()
    await robot.start()  # what a killed robot leaves is removed by the next one
    await robot.stop()
