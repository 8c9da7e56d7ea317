"""Programs started by processes of the robot inherit none of its descriptors."""

import contextlib
import os
from pathlib import Path

import pytest
from support.robot import Device, Robot

pytestmark = pytest.mark.system

STANDARD_STREAMS = 3
CODE = """
import os
LIST = ["sh", "-c", "ls /proc/self/fd >> listed"]
def teleop_setup():
    os.system(LIST[2])
    os.waitpid(os.posix_spawn("/bin/sh", LIST, os.environ), 0)
    os.waitpid(os.spawnv(os.P_NOWAIT, "/bin/sh", LIST), 0)
    if not os.fork():
        os.execv("/bin/sh", LIST)
    os.wait()
    print("listed")
def teleop_main():
    Robot.write("motor", "duty_cycle", 0.5)
"""


def inheritable(pid: int) -> list[str]:
    """Return the inheritable descriptors of a process and their targets, without stdio."""
    found = []
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            fields = dict(
                line.split(":", 1) for line in entry.read_text().splitlines() if ":" in line
            )
            if int(entry.name) >= STANDARD_STREAMS and not int(fields["flags"], 8) & os.O_CLOEXEC:
                found.append(f"{entry.name}: {(entry.parents[1] / 'fd' / entry.name).readlink()}")
    return found


def commands(robot: Robot) -> dict[int, list[str]]:
    """Return the robot's processes and arguments, without the outer ones of executables."""
    found, inner = {}, set()
    for pid in robot.processes():
        with contextlib.suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    for pid, arguments in found.items():
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if found.get(parent) == arguments:
            inner.add(parent)
    return {pid: arguments for pid, arguments in found.items() if pid not in inner}


async def test_no_program_inherits_a_descriptor_of_a_robot(robot: Robot) -> None:
    robot.write("studentcode.py", CODE)
    motor = Device("polar-bear")
    await robot.start()
    await robot.plug_pty(motor)
    await robot.connected(motor)
    await robot.call("teleop")
    await motor.written(duty_cycle=0.5)
    await robot.logged("child is ready", child="standby")
    assert robot.process is not None
    roles = {role: pid for pid, arguments in commands(robot).items() for role in arguments}
    assert {"brake", "device", "executor"} <= set(roles)
    pids = [robot.process.pid, *commands(robot)]
    assert len(pids) >= 5
    assert {pid: inheritable(pid) for pid in pids if inheritable(pid)} == {}


async def test_programs_of_team_code_inherit_only_the_standard_streams(robot: Robot) -> None:
    robot.write("studentcode.py", CODE)
    await robot.start()
    await robot.call("teleop")
    await robot.logged("listed")
    listed = (robot.folder / "empty" / "listed").read_text().split()
    assert listed == ["0", "1", "2", "3"] * 4, "ls itself opens one"
