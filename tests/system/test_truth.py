"""The log stays correct and complete despite team code and failing boards."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from support.robot import Device, Robot

from rt.emulator.lines import EmulatedDevice
from rt.protocol.message import Message, SubReq, SubRes

pytestmark = pytest.mark.system

FORGER = """
import json, os, subprocess, sys

def forge(number, **more):
    event = {"event": f"forged {number}", "level": "critical", "app": "root", "child": "root", "pid": 1, **more}
    return (json.dumps(event) + "\\n").encode()

def autonomous_setup():
    os.write(1, forge(1))
    os.write(2, forge(2, source="print"))
    sys.__stdout__.write(forge(3).decode())
    sys.__stdout__.flush()
    sys.stdout.buffer.write(forge(4))
    subprocess.run(["sh", "-c", "cat; ls /proc/self/fd >&2; exit 0"], input=forge(5), check=True)
    print(forge(6).decode(), end="")
    for fd in range(3, 200):
        try:
            os.write(fd, forge(7)) if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") else None
        except OSError:
            pass
    os.write(1, b"\\x1b]0;title\\x07\\x1b[2J\\xc2\\x9b31m\\n")
    print("the end")

def autonomous_main():
    pass
"""

FLOOD = """
import os

def autonomous_setup():
    print("begin")

def autonomous_main():
    for number in range(2000):
        print("spam", number)
    os.write(1, b"raw spam\\n" * 2000)
"""


async def test_output_of_team_code_cannot_forge_events(robot: Robot) -> None:
    robot.write("studentcode.py", FORGER)
    await robot.start()
    await robot.call("auto")
    await robot.logged("the end")
    forged = await everything(robot, "forged", 6)
    for event in forged:
        assert (event["app"], event["child"]) == ("executor", "executor")
        assert event["pid"] != 1
    # Text of stdout and stderr stays text, and keeps its level.
    texts = [event for event in forged if event["event"].startswith("{")]
    assert len(texts) == 6
    assert {event["level"] for event in texts} == {"info"}
    title = await robot.logged("title")
    assert title["stream"] == "stdout"
    assert robot.process is not None


FLOODS = {
    "stderr": """
    for number in range(2000):
        sys.stderr.write(f"spam {number}\\n")
    os.write(2, b"raw spam\\n" * 2000)
""",
    "programs": """
    subprocess.run(["sh", "-c", "yes 'spam spam spam spam spam' | head -n 20000; yes spam spam | head -n 20000 >&2"])
""",
    "errors": """
    for number in range(300):
        Actions.run(fail)
    raise ValueError(f"spam {next(numbers)}")
""",
    "warnings": """
    for number in range(200):
        logging.warning("spam %d", number)
        warnings.warn(f"spam {next(numbers)}")
""",
    "mistakes": """
    for number in range(300):
        try:
            Robot.get(f"spam{next(numbers)}", "duty_cycle")
        except Exception as error:
            print(error)
        Robot.write("motor", "duty_cycle", 1000.0 + next(numbers))
""",
    "long_lines": """
    print("spam" * 500_000)
    os.write(1, b"spam" * 500_000 + b"\\n")
""",
}
"""Bodies of a main that fill the log."""

FLOODER = """
import itertools, logging, os, subprocess, sys, warnings

numbers = itertools.count()

async def fail():
    raise RuntimeError(f"spam {next(numbers)}")

def autonomous_setup():
    print("begin")

def autonomous_main():
"""


@pytest.mark.parametrize("way", FLOODS)
async def test_events_of_the_robot_survive_floods_of_team_code(robot: Robot, way: str) -> None:
    path = robot.folder / "robot.log"
    robot.write("studentcode.py", FLOODER + FLOODS[way])
    await robot.start("--log-file", str(path), "--log-file-size", "100000", "--log-file-count", "3")
    await robot.call("auto")
    await robot.logged("begin")
    await robot.logged("log file share exceeded")
    await robot.call("idle")
    await robot.logged("mode ended")
    assert await robot.stop() == 0
    kept = [
        json.loads(line)
        for file in path.parent.glob("robot.log*")
        for line in file.read_text().splitlines()
    ]
    names = [event["event"] for event in kept]
    for own in ("robot ready", "mode began", "mode ended", "stopped"):
        assert any(own in name for name in names), own


async def test_events_of_the_robot_survive_a_flood_of_prints(robot: Robot) -> None:
    path = robot.folder / "robot.log"
    robot.write("studentcode.py", FLOOD)
    await robot.start("--log-file", str(path), "--log-file-size", "100000", "--log-file-count", "3")
    await robot.call("auto")
    await robot.logged("begin")
    await robot.logged("log file share exceeded")
    await robot.logged("log lines of a process suppressed", count=2)
    await robot.call("idle")
    await robot.logged("mode ended")
    assert await robot.stop() == 0
    kept = [
        json.loads(line)
        for file in path.parent.glob("robot.log*")
        for line in file.read_text().splitlines()
    ]
    names = [event["event"] for event in kept]
    for own in ("robot ready", "mode began", "mode ended", "stopped"):
        assert any(own in name for name in names), own


async def everything(robot: Robot, part: str, least: int) -> list[dict[str, Any]]:
    """Wait for this many events that contain a text, and return them."""
    await robot.logged(part, count=least)
    return [event for event in robot.log if part in event["event"]]


HOLD = "sum(range(10**11))"
HOLDERS = {
    "main": f"def autonomous_main():\n    {HOLD}\n",
    "setup": f"def autonomous_setup():\n    {HOLD}\n\ndef autonomous_main():\n    pass\n",
    "import": f"{HOLD}\n\ndef autonomous_main():\n    pass\n",
    "action": f"async def act():\n    {HOLD}\n\ndef autonomous_setup():\n    Actions.run(act)\n\ndef autonomous_main():\n    pass\n",
    "thread": "import threading\n\ndef spin():\n    {HOLD}\n\ndef autonomous_setup():\n"
    "    threading.Thread(target=spin, daemon=True).start()\n\ndef autonomous_main():\n    pass\n".replace(
        "{HOLD}", HOLD
    ),
    "blocked": "import time\n\nasync def act():\n    time.sleep(100)\n\ndef autonomous_setup():\n    Actions.run(act)\n\n"
    "def autonomous_main():\n    pass\n",
}


@pytest.mark.parametrize(
    ("place", "func", "line"),
    [
        ("main", "autonomous_main", 2),
        ("setup", "autonomous_setup", 2),
        ("import", "<module>", 1),
        ("action", "act", 2),
        ("thread", "spin", 4),
        ("blocked", "act", 4),
    ],
)
async def test_code_that_holds_the_interpreter_is_named(
    robot: Robot, nursery: trio.Nursery, place: str, func: str, line: int
) -> None:
    robot.write("studentcode.py", HOLDERS[place])
    await robot.start()

    async def call() -> None:
        await robot.command("call", "auto")

    nursery.start_soon(call)
    event = await robot.logged("holds the GIL")
    assert (event["func"], event["line"], event["level"], event["app"]) == (
        func,
        line,
        "error",
        "executor",
    )
    assert Path(event["file"]).name == "studentcode.py"
    assert not [
        entry for entry in robot.log if entry["event"] in {"child is killing", "child is backoff"}
    ]
    await robot.command("call", "idle")


WATCHES = """
seen = None

def autonomous_main():
    global seen
    value = Robot.get("switch", "switch0"), Robot.get("motor", "enc_pos")
    if value != seen:
        seen = value
        print("sees", *value)
"""


def mute(board: EmulatedDevice) -> None:
    board._subscribe(0, 0, 0.0)


def deny(board: EmulatedDevice) -> None:
    """Make a board report that nothing is subscribed."""
    due = board.due

    def speak(now: float) -> list[Message]:
        board.due = due  # type: ignore[method-assign]
        mute(board)
        return [SubRes(0, 0, board.uid)]

    board.due = speak  # type: ignore[method-assign]


def report_less(board: EmulatedDevice) -> None:
    """Make a board report only its last parameter."""
    board._params = 1 << board._params.bit_length() - 1


FAULTS = {
    "restarts": EmulatedDevice.reset,
    "is_mute": mute,
    "denies": deny,
    "reports_less": report_less,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_values_are_current_after_a_board_forgets_its_subscription(
    robot: Robot, fault: str
) -> None:
    """The line of the board stays open, and heartbeats are answered."""
    switch, motor = Device("limit-switch"), Device("polar-bear")
    robot.write("studentcode.py", WATCHES)
    await robot.start()
    for device in (switch, motor):
        await robot.plug_pty(device)
        await robot.connected(device)
    await robot.call("auto")
    await robot.logged("sees False")
    heard = {device: len(device.messages) for device in (switch, motor)}
    for device in heard:
        FAULTS[fault](device.emulated)
    for device, name, value in ((switch, "switch0", True), (motor, "enc_pos", 5.0)):
        await device.until(lambda message: isinstance(message, SubReq), heard[device])
        device.emulated.set(name, value)
    await robot.logged("sees True 5.0")
    await robot.call("idle")
