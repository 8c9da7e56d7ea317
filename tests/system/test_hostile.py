"""Team code that hangs, forks, exits, or attacks the robot."""

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from support.robot import Device, Robot

from rt.errors import RuntimeBaseException
from rt.protocol.message import DevWrite

pytestmark = pytest.mark.system

LOOK_INTERVAL = 0.02
OBSERVED = 0.8
"""How long (s) a device must stay disabled."""
PROGRAMS = Path(__file__).parents[1] / "programs"


async def runs(robot: Robot, program: str, mode: str, *flags: str) -> Device:
    """Start a robot in a mode and return its motor; ``UID`` in the program is its UID."""
    motor = Device("polar-bear")
    robot.write("studentcode.py", program.replace("UID", str(motor.uid)))
    await robot.start(*flags)
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    await robot.call(mode)
    return motor


async def started(robot: Robot, program: str) -> Device:
    """Start a robot with a program of tests/programs in teleop; return its motor after a write."""
    motor = await runs(robot, (PROGRAMS / program).read_text(), "teleop")
    await motor.written(duty_cycle=0.5)
    return motor


async def test_main_that_ignores_its_time_limit_loses_the_motors(robot: Robot) -> None:
    motor = await started(robot, "swallows_time_limit.py")
    since = await motor.disabled(await motor.written(duty_cycle=0.5))
    await robot.logged("does not return")
    assert motor.writes(since) == 0
    # The program cannot be stopped, so its process is killed, and a new one is ready and idle.
    done = await robot.command("call", "idle")
    assert done.returncode in {0, 1}
    await robot.logged("child is ready", child="executor", count=2)
    assert await robot.call("mode") == "idle"


async def test_thread_ends_with_its_mode(robot: Robot) -> None:
    motor = await started(robot, "stray_thread.py")
    before = robot.child("executor")
    since = len(motor.messages)
    await robot.call("idle")
    since = await motor.disabled(since)
    await robot.wait_exited(before)
    # It does not drive under the next program.
    robot.write("studentcode.py", "def teleop_main():\n    print('next')\n")
    await robot.call("teleop")
    await robot.logged("next", count=5)
    assert motor.writes(since) == 0
    assert motor.emulated.values["duty_cycle"] == 0.0


async def test_action_that_blocks_the_event_loop_loses_the_motors(robot: Robot) -> None:
    motor = await started(robot, "blocking_action.py")
    await motor.disabled(await motor.written(duty_cycle=0.5))


async def test_error_in_main_disables_devices_and_names_the_line(robot: Robot) -> None:
    motor = await started(robot, "error_after_a_while.py")
    await motor.disabled(await motor.written(duty_cycle=0.5))
    entry = await robot.logged("ZeroDivisionError")
    assert entry["line"] == 11
    assert Path(entry["file"]).name == "studentcode.py"


async def test_programs_of_team_code_end_with_the_robot(robot: Robot) -> None:
    await started(robot, "starts_processes.py")
    await robot.logged("started processes")
    assert await robot.stop() == 0
    assert robot.leftovers() == []


async def test_executor_restarts_idle_after_code_ends_its_process(robot: Robot) -> None:
    motor = await started(robot, "exits.py")
    await motor.disabled(await motor.written(duty_cycle=0.5))
    await robot.logged("child is ready", child="executor", count=2)
    assert await robot.call("mode") == "idle"


async def test_idle_wins_over_a_starting_mode(robot: Robot) -> None:
    robot.write(
        "studentcode.py", "import time\nprint('loading')\ntime.sleep(8)\ndef teleop_main(): pass\n"
    )
    await robot.start()
    answers: list[str] = []

    async def begin() -> None:
        answers.append((await robot.command("call", "teleop")).stderr)

    async with trio.open_nursery() as calls:
        calls.start_soon(begin)
        await robot.logged("loading")
        await robot.call("idle")
    assert "did not begin: idle was requested" in answers[0]
    assert not [entry for entry in robot.log if entry["event"] == "mode began"]


async def test_action_that_ignores_its_cancellation_is_ended(robot: Robot) -> None:
    motor = await started(robot, "swallows_cancel.py")
    since = len(motor.messages)
    await robot.command("call", "idle")
    await motor.disabled(since)
    await robot.logged("child is ready", child="executor", count=2)
    assert await robot.call("mode") == "idle"


async def test_fork_of_team_code_moves_no_motor(robot: Robot) -> None:
    motor = await started(robot, "forks.py")
    since = len(motor.messages)
    for _ in range(20):
        since = await motor.written(duty_cycle=0.5, since=since)
    written = [
        motor.emulated.peripheral.unpack(message.params, message.data)["duty_cycle"]
        for message in motor.messages
        if isinstance(message, DevWrite)
    ]
    assert min(written) > 0


OVERWRITES = """
import mmap, os, threading

def overwrite():
    maps = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if "memfd:rt-" in os.readlink(f"/proc/self/fd/{fd}"):
                maps.append(mmap.mmap(fd, os.fstat(fd).st_size))
        except (OSError, ValueError):
            pass
    for _ in range(5000):
        for each in maps:
            each[:4194304] = FILL * 4194304
        threading.Event().wait(0.002)

writes = 0

def teleop_main():
    global writes
    Robot.write(UID, "duty_cycle", 0.5)
    writes += 1
    if writes == 20:
        threading.Thread(target=overwrite, daemon=True).start()
"""


@pytest.mark.parametrize("fill", [b"\xff", b"\0", b"\x7f"])
async def test_overwritten_shared_memory_ends_the_robot_in_order(robot: Robot, fill: bytes) -> None:
    motor = await runs(robot, OVERWRITES.replace("FILL", repr(fill)), "teleop")
    since = await motor.written(duty_cycle=0.5)
    await robot.logged("team code has overwritten the robot's shared memory", level="critical")
    await motor.disabled(since)
    assert await robot.wait() == 1
    assert "Traceback" not in robot.errors.decode()
    assert "internal error" not in robot.errors.decode()
    while robot.processes():  # noqa: ASYNC110
        await trio.sleep(LOOK_INTERVAL)


FORGES = """
import gc, os, signal, threading

signal.signal(signal.SIGTERM, signal.SIG_IGN)
os._exit = lambda code: None
mains = 0

def forge():
    from rt.buffer.clock import boottime_ns
    from rt.buffer.lease import LeaseTable

    table = next(each for each in gc.get_objects() if isinstance(each, LeaseTable))
    shown = table._shown
    while True:
        now = boottime_ns()
        shown.heartbeat[0] = now
        for slot in range(len(table.stamps)):
            shown.bars[slot] = shown.revoked[slot] = table._lapsed[slot] = 0
            if table.pids[slot] == os.getpid():
                table.stamps[slot] = now
        try:
            Robot.write(UID, "duty_cycle", 0.5)
        except BaseException:
            pass

def autonomous_main():
    global mains
    Robot.write(UID, "duty_cycle", 0.5)
    mains += 1
    if mains == 5:
        threading.Thread(target=forge, daemon=True).start()
        print("forges")
"""


async def ask_for_idle(robot: Robot) -> None:
    with contextlib.suppress(RuntimeBaseException):
        await robot.call("idle")


async def ask_for_estop(robot: Robot) -> None:
    with contextlib.suppress(RuntimeBaseException):
        await robot.call("estop")


async def terminate_root(robot: Robot) -> None:
    os.kill(robot.root(), signal.SIGTERM)


async def stop_root(robot: Robot) -> None:
    os.kill(robot.root(), signal.SIGSTOP)


@pytest.mark.parametrize("ask", [ask_for_idle, ask_for_estop, terminate_root, stop_root])
async def test_forged_orders_of_the_root_do_not_prolong_motion(
    robot: Robot, ask: Callable[[Robot], Awaitable[None]]
) -> None:
    motor = await runs(robot, FORGES, "auto")
    await robot.logged_one_of("forges", "team code has overwritten the robot's shared memory")
    root = robot.root()
    await ask(robot)
    last = max(
        index for index, message in enumerate(motor.messages) if isinstance(message, DevWrite)
    )
    since = await motor.disabled(last)
    await trio.sleep(OBSERVED)
    assert motor.writes(since) == 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(root, signal.SIGCONT)
        os.kill(root, signal.SIGTERM)
    await robot.wait()
    await robot.wait_all_exited()


TAKES = """
import gc, os, signal, threading

signal.signal(signal.SIGTERM, signal.SIG_IGN)
os._exit = lambda code: None
mains = 0

def autonomous_main():
    global mains
    Robot.write(UID, "duty_cycle", 0.5)
    mains += 1
    if mains == 5:
        threading.Thread(target=take, daemon=True).start()

def teleop_main():
    pass
"""
TAKEN = {
    "the name of the service that stops": """
def take():
    import zmq
    place = zmq.Context.instance().socket(zmq.DEALER)
    place.setsockopt(zmq.ROUTING_ID, b"executor-service")
    place.connect(f"ipc://{os.environ['RT_INSTANCE_DIR']}/router-backend.sock")
    place.send_multipart([b"", b""])
    print("taken")
    while True:
        place.recv_multipart()
""",
    "a slot of a command": """
def take():
    import array, msgspec, socket
    from rt.buffer.device import DeviceBuffer
    from rt.buffer.lease import LeaseTable
    desk = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    desk.connect(f"{os.environ['RT_INSTANCE_DIR']}/visitors.sock")
    desk.send(msgspec.msgpack.encode({"seated": True}))
    slot = msgspec.msgpack.decode(desk.recvmsg(4096, socket.CMSG_SPACE(400))[0])["seat"]
    table = next(each for each in gc.get_objects() if isinstance(each, LeaseTable))
    buffer = next(each for each in gc.get_objects() if isinstance(each, DeviceBuffer))
    lease = table.lease(slot)
    buffer.token = table.token_byte(slot)
    print("taken")
    while True:
        try:
            lease.renew() or lease.begin()
            buffer.write("duty_cycle", 0.5)
        except Exception:
            pass
""",
    "the lease of the next mode": """
def take():
    from rt.buffer.device import DeviceBuffer
    from rt.buffer.lease import LeaseTable
    table = next(each for each in gc.get_objects() if isinstance(each, LeaseTable))
    buffer = next(each for each in gc.get_objects() if isinstance(each, DeviceBuffer))
    print("taken")
    while True:
        for slot in 0, 3:
            try:
                buffer.token = table.token_byte(slot)
                buffer.write("duty_cycle", 0.5)
            except Exception:
                pass
""",
}


@pytest.mark.parametrize("taken", list(TAKEN))
@pytest.mark.parametrize("stop", ["idle", "teleop"])
async def test_taken_slots_and_names_do_not_prolong_motion(
    robot: Robot, taken: str, stop: str
) -> None:
    motor = await runs(robot, TAKEN[taken] + TAKES, "auto", "--no-teleop-needs-gamepad")
    await robot.logged("taken")
    since = await motor.written(duty_cycle=0.5)
    await robot.call(stop)
    since = await motor.disabled(since)
    await trio.sleep(OBSERVED)
    assert motor.writes(since) == 0
    assert await robot.call("mode") == stop
