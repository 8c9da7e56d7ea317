"""Each mode has its own process, and an idle robot has one in reserve."""

import os
import signal
from typing import Any

import pytest
import trio
from support.robot import PATIENCE, Robot

from rt.executor.pool import EXECUTOR_SLOTS

pytestmark = pytest.mark.system

CODE = """
import os
print("pid", os.getpid())
def autonomous_main():
    pass
def teleop_main():
    pass
"""


async def children(robot: Robot) -> dict[str, dict[str, Any]]:
    return {status["name"]: status for status in await robot.call("status")}


async def settled(robot: Robot) -> dict[str, dict[str, Any]]:
    """Wait until the executor is ready and there is no standby."""
    with trio.fail_after(PATIENCE):
        while True:
            found = await children(robot)
            if found["executor"]["state"] == "ready" and found["standby"]["state"] == "stopped":
                return found
            await trio.sleep(0.02)


async def pids(robot: Robot, count: int) -> list[int]:
    """Wait for the processes that have loaded the code, and return their pids."""
    await robot.logged("pid ", count=count)
    return [
        int(entry["event"].split()[1]) for entry in robot.log if entry["event"].startswith("pid ")
    ]


async def test_every_mode_runs_in_another_process(robot: Robot) -> None:
    robot.write("studentcode.py", CODE)
    await robot.start()
    for number, mode in enumerate(["auto", "auto", "teleop", "auto"], 1):
        await robot.call(mode)
        used = await pids(robot, number)
    assert len(set(used)) == len(used)
    await robot.call("idle")
    found = await settled(robot)
    assert found["executor"]["pid"] not in used
    assert found["executor"]["restarts"] == 0, "planned restarts repair nothing"
    for pid in used:
        await robot.wait_exited(pid)


async def test_crash_in_a_mode_is_reported(robot: Robot) -> None:
    robot.write("studentcode.py", CODE)
    await robot.start()
    await robot.call("auto")
    (pid,) = await pids(robot, 1)
    os.kill(pid, signal.SIGKILL)
    found = await settled(robot)
    assert found["executor"]["restarts"] == 1
    assert found["executor"]["last_exit"]["reason"] == "ended by SIGKILL"
    assert await robot.call("mode") == "idle"
    await robot.logged("mode ended", reason="the process that ran team code has exited")


async def test_mode_starts_after_repeated_exits_of_its_process(robot: Robot) -> None:
    robot.write(
        "studentcode.py",
        "import os\ndef autonomous_setup():\n    os._exit(3)\ndef autonomous_main(): pass\n",
    )
    await robot.start()
    for count in range(1, 6):
        await robot.call("auto")
        await robot.logged("mode ended", count=count)
    robot.write("studentcode.py", CODE)
    await robot.call("auto")
    assert await robot.call("mode") == "auto"


async def test_program_in_the_background_ends_with_its_own_mode(robot: Robot) -> None:
    robot.write(
        "studentcode.py",
        "import os\ndef autonomous_setup():\n"
        "    os.system('sleep 1000 >/dev/null 2>&1 & echo $! >> programs')\n"
        "    print('begun')\n"
        "def autonomous_main(): pass\n",
    )
    await robot.start()
    for count in range(1, 5):
        await robot.call("auto")
        await robot.logged("begun", count=count)
        with trio.fail_after(PATIENCE):
            while True:  # until the process of the mode before has been swept
                found = await children(robot)
                if all(found[name]["state"] == "ready" for name in EXECUTOR_SLOTS):
                    break
                await trio.sleep(0.02)
        *earlier, latest = map(int, (robot.folder / "empty" / "programs").read_text().split())
        for pid in earlier:
            await robot.wait_exited(pid)
        os.kill(latest, 0)
    await robot.call("idle")
    await robot.wait_exited(latest)
