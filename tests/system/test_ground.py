"""Damage to a robot's shared memory, directory, sockets and limits."""

import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from support.board import Board
from support.driving import DRIVE, stays_still
from support.driving import driving as driving_board
from support.robot import BINARY, Device, Robot

from rt.errors import RemoteCallError
from rt.protocol.datagrams import GamepadState

pytestmark = pytest.mark.system

FORWARD = GamepadState(0.0, 0.5, 0.0, 0.0, 0)
RESTORED = "restored removed files of the robot"


async def driving(robot: Robot) -> Device:
    """Start a robot whose motor turns."""
    motor = Device("polar-bear")
    await robot.start()
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    robot.nursery.start_soon(robot.drive, FORWARD)
    await robot.call("teleop")
    await motor.written(duty_cycle=0.5)
    return motor


async def until_called(robot: Robot, method: str) -> object:
    """Call a method of a new child, whose service starts after its process."""
    with trio.fail_after(30):
        while True:
            with contextlib.suppress(Exception):
                return await robot.call(method)
            await trio.sleep(0.05)


def remove(directory: Path) -> None:
    shutil.rmtree(directory)


def remove_parent(directory: Path) -> None:
    shutil.rmtree(directory.parent)


def replace(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))
    directory.mkdir(mode=0o700)


def remove_sockets(directory: Path) -> None:
    for path in directory.glob("*.sock"):
        path.unlink()


def replace_sockets(directory: Path) -> None:
    for path in directory.glob("*.sock"):
        path.unlink()
        path.touch()


def remove_lock(directory: Path) -> None:
    (directory / "pid").unlink()


@pytest.mark.parametrize(
    "act", [remove, remove_parent, replace, remove_sockets, replace_sockets, remove_lock]
)
async def test_robot_outlives_its_directory(robot: Robot, act: Callable[[Path], None]) -> None:
    motor = await driving(robot)
    children = robot.child("device"), robot.child("executor")
    holder = robot.instance.holder()
    act(robot.instance.directory)
    await robot.logged(RESTORED)
    assert robot.instance.holder() == holder
    await motor.written(duty_cycle=0.5, since=len(motor.messages))
    assert await robot.call("mode") == "teleop"
    assert (await robot.command("devices", "--once")).returncode == 0
    assert (robot.child("device"), robot.child("executor")) == children
    for count, child in enumerate(("executor", "device"), start=1):
        os.kill(robot.child(child), signal.SIGKILL)
        await robot.logged("child is ready", child=child, count=2)
        await robot.connected(motor, since=count - 1)
        await until_called(robot, "teleop")
        await motor.written(duty_cycle=0.5, since=len(motor.messages))
    assert await robot.stop() == 0
    shutil.rmtree(robot.instance.directory.with_name("elsewhere"), ignore_errors=True)
    assert robot.leftovers() == []


async def test_mode_ends_when_the_directory_cannot_be_recreated(robot: Robot) -> None:
    motor = await driving(robot)
    runtime = robot.instance.directory.parents[1]
    shutil.rmtree(runtime)
    runtime.write_text("a file where XDG_RUNTIME_DIR was")
    await robot.logged("cannot restore the instance directory")
    await robot.logged("mode ended", reason="commands do not reach the robot: see the log")
    await motor.disabled(0)
    runtime.unlink()
    runtime.mkdir(mode=0o700)
    await robot.logged(RESTORED)
    assert await robot.call("mode") == "idle"
    assert not [
        entry for entry in robot.log if entry["event"] in {"child is backoff", "child is killing"}
    ]
    await until_called(robot, "teleop")
    await motor.written(duty_cycle=0.5, since=len(motor.messages))
    assert await robot.stop() == 0
    assert robot.leftovers() == []


def named_memory(robot: Robot) -> list[Path]:
    return list(Path("/dev/shm").glob(f"*{robot.name}*"))


async def test_shared_memory_survives_restarts_without_any_name(robot: Robot) -> None:
    motor = await driving(robot)
    assert not named_memory(robot)
    for child in ("executor", "device"):
        os.kill(robot.child(child), signal.SIGKILL)
        await robot.logged("child is ready", child=child, count=2)
        await until_called(robot, "teleop")
        await motor.written(duty_cycle=0.5, since=len(motor.messages))
    assert robot.devices()[motor.uid]["connected"]


async def test_shared_memory_of_a_running_robot_cannot_be_truncated(robot: Robot) -> None:
    motor = await driving(robot)
    memory = robot.shm_prefix().rstrip("/")
    for size in (0, 4096):
        with pytest.raises(PermissionError):
            os.truncate(memory, size)
    await motor.written(duty_cycle=0.5, since=len(motor.messages))


HARMLESS = {
    "truncate": "os.ftruncate(fd, 0)",
    "extend": "os.ftruncate(fd, 1 << 30)",
    "truncate by path": "os.truncate(f'/proc/self/fd/{fd}', 4096)",
    "close": "os.close(fd)",
    "replace": "os.dup2(os.memfd_create('other'), fd)",
}
CRASHES = {
    "unmap": "C.munmap(ctypes.c_void_p(address), ctypes.c_size_t(16 << 20))",
    "protect": "C.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(16 << 20), 0)",
}
ENDS = {
    "punch a hole": "C.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(16 << 20))",
    "remove pages": "C.madvise(ctypes.c_void_p(address), ctypes.c_size_t(16 << 20), 9)",
}
DAMAGES = """
import ctypes, mmap, os, time
C = ctypes.CDLL(None)
calls = 0
def autonomous_main():
    global calls
    Robot.write("motor", "duty_cycle", 0.5)
    calls += 1
    if calls != 10:
        return
    fds = [int(name) for name in os.listdir("/proc/self/fd") if name.isdecimal()]
    for fd in fds:
        try:
            if "memfd:rt-" in os.readlink(f"/proc/self/fd/{fd}"):
                break
        except OSError:
            pass
    else:
        fd = -1
    lines = [line for line in open("/proc/self/maps") if "memfd:rt-" in line]
    address = int(lines[0].partition("-")[0], 16)
    print("memory", fd, len(lines))
    assert fd >= 0
    try:
        ATTACK
    except OSError as error:
        print("refused", error)
    print("done")
"""


async def damaged(robot: Robot, statement: str) -> Board:
    """Start a robot whose program damages its shared memory while a motor moves."""
    board = await driving_board(robot, DAMAGES.replace("ATTACK", statement))
    await robot.logged("memory ")
    return board


@pytest.mark.parametrize("statement", list(HARMLESS))
async def test_team_code_cannot_remove_the_shared_memory(robot: Robot, statement: str) -> None:
    board = await damaged(robot, HARMLESS[statement])
    await robot.logged("done")
    await robot.call("list_uids")
    assert await robot.call("mode") == "auto"
    await board.moves()
    await robot.call("idle")
    await stays_still(board, await board.stops())
    assert [entry["child"] for entry in robot.log if entry["event"] == "child is ready"].count(
        "executor"
    ) <= 2
    assert robot.devices()[board.uid]["connected"]


@pytest.mark.parametrize("statement", list(CRASHES))
async def test_team_code_without_shared_memory_ends_only_itself(
    robot: Robot, statement: str
) -> None:
    board = await damaged(robot, CRASHES[statement])
    stopped = await board.stops()
    await robot.logged("mode ended", reason="the process that ran team code has exited")
    await stays_still(board, stopped)
    robot.write("studentcode.py", f"def autonomous_main():\n    {DRIVE}\n")
    await robot.call("auto")
    await board.moves()


@pytest.mark.parametrize("statement", list(ENDS))
async def test_erased_shared_memory_ends_the_robot_in_order(robot: Robot, statement: str) -> None:
    board = await damaged(robot, ENDS[statement])
    await robot.logged("team code has overwritten the robot's shared memory", level="critical")
    stopped = await board.stops()
    assert await robot.wait() == 1
    await stays_still(board, stopped)


OVERWRITES = {
    "header": "ctypes.memset(at, 0, 8)",
    "kind of the lock": "ctypes.memset(at + 64 + 16, 0xFF, 4)",
    "owner of the lock": "ctypes.memset(at + 64, 1, 1)",
    "transaction": "ctypes.memset(at + 148, 9, 1)",
    "all of it": "ctypes.memset(at, 0xFF, ctypes.sizeof(buffer._view))",
}
OVERWRITING = """
import ctypes
calls = 0
def autonomous_main():
    global calls
    Robot.write("motor", "duty_cycle", 0.5)
    calls += 1
    if calls == 10:
        buffer = Robot._store.get_or_open(UID, create=False)
        at = ctypes.addressof(buffer._view)
        ATTACK
        print("overwritten")
"""


@pytest.mark.parametrize("statement", list(OVERWRITES))
async def test_damaged_memory_of_a_device_is_replaced_after_the_mode(
    robot: Robot, statement: str
) -> None:
    board = Board()
    program = OVERWRITING.replace("UID", str(int(board.uid))).replace(
        "ATTACK", OVERWRITES[statement]
    )
    board = await driving_board(robot, program)
    await robot.logged("overwritten")
    await robot.logged("team code has overwritten the buffer of a polar-bear", level="error")
    await robot.logged("mode ended")
    stopped = await board.stops()
    await stays_still(board, stopped)
    robot.write("studentcode.py", f"def autonomous_main():\n    {DRIVE}\n")
    await until_called(robot, "auto")
    await board.moves()
    assert await robot.call("mode") == "auto"
    assert robot.devices()[board.uid]["connected"]


async def helpers(robot: Robot) -> list[int]:
    """Return the processes that the team's code has started."""
    program = Path(__file__).parents[1] / "programs" / "leaves_processes.py"
    robot.write("studentcode.py", program.read_text())
    await driving(robot)
    await robot.logged("helper", count=5)
    found = [
        int(entry["event"].split()[1])
        for entry in robot.log
        if entry["event"].startswith("helper ")
    ]
    for pid in found:
        os.kill(pid, 0)
    return found


async def gone(pids: list[int]) -> None:
    """Wait until processes that are not children have exited."""
    with trio.fail_after(30):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                try:
                    await trio.lowlevel.wait_readable(fd)
                finally:
                    os.close(fd)


@pytest.mark.skipif(
    BINARY is not None, reason="the team's code of this test starts a Python of its own"
)
@pytest.mark.parametrize("way", ["stop", "estop", "idle", "auto", "kill executor", "hang"])
async def test_no_process_of_team_code_outlives_its_executor(robot: Robot, way: str) -> None:
    pids = await helpers(robot)
    if way == "stop":
        assert await robot.stop() == 0
    elif way == "estop":
        await robot.call("estop")
        assert await robot.wait() == 255
    elif way in {"idle", "auto"}:
        robot.write("studentcode.py", "def autonomous_main(): pass\n")
        await robot.call(way)
    else:
        os.kill(
            robot.child("executor"), signal.SIGKILL if way == "kill executor" else signal.SIGSTOP
        )
        await robot.logged("child is ready", child="executor", count=2)
    await gone(pids)


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        (resource.RLIMIT_NOFILE, 64, "the limit of open files is 64, and a robot needs 512"),
        (resource.RLIMIT_FSIZE, 4096, "the limit of the size of a file is 4 KiB"),
        (resource.RLIMIT_AS, 400 << 20, "the limit of address space is 409600 KiB"),
    ],
)
async def test_too_low_limit_is_one_sentence(
    robot: Robot, limit: int, value: int, words: str
) -> None:
    if BINARY is not None and limit != resource.RLIMIT_NOFILE:
        pytest.skip("the executable needs more than that to unpack itself")
    with trio.fail_after(30):
        done = await trio.run_process(
            ["prlimit", f"--{_OPTION[limit]}={value}:{value}", *robot.arguments("run")],
            env=robot.environment | {"PATH": os.environ["PATH"]},
            cwd=robot.folder / "empty",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 78
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert robot.leftovers() == []


async def test_low_soft_limits_are_raised(robot: Robot) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        await robot.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    soft, _ = resource.prlimit(robot.child("device"), resource.RLIMIT_NOFILE)
    assert soft >= 512
    assert await robot.stop() == 0


_OPTION = {
    resource.RLIMIT_NOFILE: "nofile",
    resource.RLIMIT_FSIZE: "fsize",
    resource.RLIMIT_AS: "as",
}


async def test_removed_project_folder_is_named(robot: Robot) -> None:
    motor = await driving(robot)
    await robot.call("idle")
    since = len(motor.messages)
    folder = robot.folder / "empty"
    shutil.rmtree(folder)
    with pytest.raises(RemoteCallError, match=f"the project folder {folder} was removed"):
        await robot.call("teleop")
    with contextlib.suppress(ProcessLookupError):  # the one of the last mode, which ends
        os.kill(robot.child("executor"), signal.SIGKILL)
    entry = await robot.logged(f"the project folder {folder} was removed", child="executor")
    assert "exception" not in entry
    assert not any("Traceback" in str(entry) for entry in robot.log)
    assert motor.writes(since) == 0
    assert await robot.stop() == 0
