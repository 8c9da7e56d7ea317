"""Another user of the computer and a hostile station cannot control a robot."""

import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
import zmq
from support.board import Board
from support.robot import PATIENCE, Device, Robot
from support.stranger import UID, require_another_user, run_stranger, start_stranger

from rt.access.authenticator import curve_options
from rt.access.station_key import StationKey
from rt.errors import ConfigError, RemoteCallError
from rt.protocol import rpc
from rt.protocol.datagrams import GamepadState, encode_gamepads
from rt.protocol.frames import encode
from rt.protocol.message import SubRes
from rt.remote import Client, SocketNode

pytestmark = pytest.mark.system

FLOOD = """
import itertools
host, base, payload, uid = "127.0.0.1", int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3]
senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
print("started", flush=True)
for number in itertools.count():
    for sender in senders:
        try:
            sender.sendto(payload, (host, base + 2))
        except OSError:
            pass
    try:
        with socket.create_connection((host, base + number % 2), 1) as stream:
            stream.sendall(strangers.pipelined(payload))
        with socket.create_connection((host, base + 4), 1) as stream:
            stream.sendall(payload)
    except OSError:
        pass
"""


MANY_SOCKETS = """
host, base, payload = "127.0.0.1", int(sys.argv[1]), bytes.fromhex(sys.argv[2])
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.bind((host, 0))
    port = probe.getsockname()[1]
senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(min(5000, most - 100))]
for number, sender in enumerate(senders):
    sender.bind((f"127.1.{number >> 8}.{number & 255}", port))
print("started", flush=True)
while True:
    for sender in senders:
        try:
            sender.sendto(payload, (host, base + 2))
        except OSError:
            pass
        time.sleep(1 / 150)
"""
"""A program that sends gamepads, each from another socket with the same port."""


def processor_time(pid: int) -> float:
    """Return the processor time (s) of a process; see proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def refused(robot: Robot, count: int) -> dict[str, Any]:
    """Wait until this many connections were refused; return the state of stations."""
    with trio.fail_after(PATIENCE):
        while True:
            report: dict[str, Any] = await robot.call("stations")
            if sum(report["refusals"].values()) >= count:
                return report
            await trio.sleep(0.02)


async def test_another_user_cannot_drive(robot: Robot) -> None:
    require_another_user()
    motor = Device("polar-bear")
    await robot.start()
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    await robot.call("teleop")
    sticks = encode_gamepads({0: GamepadState(0.0, 1.0, 0.0, 0.0, 0)}).hex()
    flood = await trio.to_thread.run_sync(
        lambda: start_stranger(FLOOD, str(robot.port_base), sticks, str(motor.uid))
    )
    try:
        assert flood.stdout is not None
        assert await trio.to_thread.run_sync(flood.stdout.readline) == "started\n"
        report = await refused(robot, 20)
        with trio.fail_after(PATIENCE):
            while report["datagrams"]["stranger"] < 1000:
                report = await robot.call("stations")
                assert await robot.call("list_uids") == [str(motor.uid)]
    finally:
        flood.kill()
        flood.communicate()
    assert motor.emulated.values["duty_cycle"] == 0.0
    await robot.logged("control datagram dropped", reason="stranger")
    await robot.logged("virtual device refused")
    call = 'strangers.call(int(sys.argv[1]), b"00")'
    assert (
        await trio.to_thread.run_sync(lambda: run_stranger(call, str(robot.port_base))) == "closed"
    )
    await robot.logged("connection refused", uid=UID)
    # A flooded robot still obeys its own user over the same ports.
    done = await robot.command("call", "--robot", f"tcp://127.0.0.1:{robot.port_base}", "mode")
    assert done.stdout == '"teleop"\n', done.stderr


async def test_many_sockets_of_another_user_cost_little_time(robot: Robot) -> None:
    require_another_user()
    await robot.start()
    await robot.call("teleop")
    sticks = encode_gamepads({0: GamepadState(0.0, 1.0, 0.0, 0.0, 0)})
    flood = await trio.to_thread.run_sync(
        lambda: start_stranger(MANY_SOCKETS, str(robot.port_base), sticks.hex())
    )
    try:
        assert flood.stdout is not None
        assert await trio.to_thread.run_sync(flood.stdout.readline) == "started\n"
        before = processor_time(robot.root())
        report: dict[str, Any] = {"datagrams": {"stranger": 0}}
        with trio.fail_after(PATIENCE):
            while report["datagrams"]["stranger"] < 600:
                await trio.sleep(0.2)
                report = await robot.call("stations")
        took = processor_time(robot.root()) - before
        with trio.fail_after(PATIENCE), socket.socket(type=socket.SOCK_DGRAM) as driver:
            while not report["datagrams"]["obeyed_unsigned"]:
                driver.sendto(sticks, ("127.0.0.1", robot.port_base + 2))
                report = await robot.call("stations")
    finally:
        flood.kill()
        flood.communicate()
    # A list of all these sockets takes 8 ms.
    assert took / report["datagrams"]["stranger"] < 2e-3
    await robot.logged("control datagram dropped", reason="stranger")


FALSE_ROBOT = """
import fcntl
place = sys.argv[1]
os.makedirs(place)
for each in (os.path.dirname(place), place):
    os.chmod(each, 0o755)
lock = open(place + "/pid", "w+")
lock.write('{"pid": 1, "argv": ["rt", "run"]}')
lock.flush()
os.chmod(place + "/pid", 0o644)
fcntl.flock(lock, fcntl.LOCK_EX)
router = zmq.Context().socket(zmq.ROUTER)
router.bind(f"ipc://{place}/router-frontend.sock")
os.chmod(place + "/router-frontend.sock", 0o777)
print("started", flush=True)
router.poll()
print("asked", flush=True)
"""
"""A program that holds the lock of a robot and listens at its addresses."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("call", "estop"),
        ("call", "idle"),
        ("write", "motor", "duty_cycle=0.5"),
        ("devices",),
        ("subscribe", "motor", "duty_cycle"),
        ("ping",),
        ("logs",),
        ("logs", "--no-follow"),
    ],
    ids=" ".join,
)
async def test_commands_refuse_robots_of_another_user(
    robot: Robot, arguments: tuple[str, ...]
) -> None:
    require_another_user()
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as shared:
        os.chmod(shared, 0o1777)  # noqa: PTH101 - in no thread
        robot.environment["XDG_RUNTIME_DIR"] = shared
        place = f"{shared}/rt/{robot.name}"
        false = await trio.to_thread.run_sync(lambda: start_stranger(FALSE_ROBOT, place))
        try:
            assert false.stdout is not None
            assert await trio.to_thread.run_sync(false.stdout.readline) == "started\n"
            done = await robot.command(*arguments)
        finally:
            false.kill()
            said, _ = false.communicate()
    assert done.returncode == ConfigError.EXIT_CODE, done.stdout + done.stderr
    assert f"{shared}/rt belongs to user {UID}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (done.stdout, said) == ("", "")


async def test_directories_of_the_robot_are_closed_to_others(robot: Robot) -> None:
    done = await robot.command("keys", "new", "blue", "--output", "-")
    assert done.returncode == 0, done.stderr
    await robot.start()
    await robot.call("set_option", {"health_check_interval": 50.0})
    state = robot.folder / "state" / "rt" / robot.name
    for each in (robot.instance.directory, state, state / "keys"):
        assert each.stat().st_mode & 0o077 == 0, each
    for each in (state / "options.json", *(state / "keys").iterdir()):
        assert each.stat().st_mode & 0o077 == 0 or each.name == ".gitignore", each


async def test_hostile_station_reads_no_secret_and_hides_no_event(robot: Robot) -> None:
    for name in ("blue", "red"):
        done = await robot.command("keys", "new", name)
        assert done.returncode == 0, done.stderr
    keys = robot.folder / "state" / "rt" / robot.name / "keys"
    folder = (
        robot.folder / "empty" if (robot.folder / "empty" / "red.rtkey").exists() else robot.folder
    )
    red = StationKey.load(next(robot.folder.rglob("red.rtkey")))
    blue = StationKey.load(next(robot.folder.rglob("blue.rtkey")))
    secrets = [
        red.secret,
        blue.secret,
        blue.datagram.secret.hex(),
        json.dumps(robot_secret(keys))[1:-1],
    ]
    await robot.start("--bind", "0.0.0.0")

    def station(station_key: StationKey, name: str) -> Client:
        node = SocketNode(
            zmq.DEALER,
            name,
            connections=[f"tcp://127.0.0.1:{robot.port_base}"],
            options={**curve_options(station_key), zmq.SNDTIMEO: 5000},
        )
        return Client(node, address="broker-service", timeout=PATIENCE)

    said = []
    async with station(blue, "panel") as honest, station(red, "panel") as hostile:
        assert await honest.call.get_option("port_base") == robot.port_base
        for name in ("robot.key", "blue.station", "../keys/robot.key"):
            for option in ("dev_catalog", "exec_module", "log_file", "keys_dir"):
                with pytest.raises(RemoteCallError) as raised:
                    await hostile.call.set_option({option: str(keys / name)})
                said.append(f"{raised.value.message} {raised.value.context}")
        for station_key in (
            "blue.rtkey",
            str(folder / "blue.rtkey"),
            "./blue.rtkey",
            "x/../blue.rtkey",
        ):
            for option in ("dev_catalog", "exec_module"):
                with pytest.raises(RemoteCallError) as raised:
                    await hostile.call.set_option({option: station_key})
                said.append(f"{raised.value.message} {raised.value.context}")
        for options in (
            {"log_level": "critical"},
            {"log_file": ""},
            {"log_format": "json"},
            {"insecure": True},
        ):
            with pytest.raises(RemoteCallError, match="cannot be set remotely"):
                await hostile.call.set_option(options)
        said.append(json.dumps(await hostile.call.get_option()))
        said.append(repr(await hostile.call.lint(timeout=PATIENCE)))
        assert await hostile.call.set_option({"health_check_interval": 50.0}) == {
            "health_check_interval": 50.0
        }
        await robot.logged("options set remotely", by="red")
        # The honest station has the same name, and kept its connection.
        assert await honest.call.get_option("port_base") == robot.port_base
    said += map(str, robot.log)
    for secret in secrets:
        assert secret not in "".join(said)


def robot_secret(keys: Path) -> str:
    line = next(
        line for line in (keys / "robot.key").read_text().splitlines() if line.startswith("secret")
    )
    return line.partition('"')[2].rpartition('"')[0]


COMMANDS = """
def tried(recipient, payload):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as stream:
        stream.settimeout(30)
        try:
            stream.sendall(strangers.GREETING)
            strangers.introduce(stream, b"panel", strangers.frames_of(recipient.encode(), bytes.fromhex(payload)))
            return not stream.recv(1000)
        except ConnectionError:
            return True

print(all([tried(*each) for each in json.loads(sys.argv[2])]))
"""

CLAIM = """
said = b""
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as stream:
    stream.settimeout(30)
    try:
        stream.sendall(bytes.fromhex(sys.argv[2]) * 10)
        said = stream.recv(1000)
    except ConnectionError:
        pass
print(said)
"""

COMMANDED = """
from os import system

def autonomous_main():
    Robot.write("motor", "duty_cycle", 0.5)

def drive():
    Robot.write("motor", "duty_cycle", 0.5)
"""


async def test_another_user_cannot_call_the_robot(robot: Robot) -> None:
    """No call over TCP runs, whether of modes, functions, options, stops or devices."""
    require_another_user()
    board = Board()
    mark = robot.folder / "mark"
    robot.write("studentcode.py", COMMANDED)
    await robot.start()
    await robot.plug_pty(board)
    await robot.connected(board)
    calls: list[tuple[str, str, list[Any]]] = [
        ("executor-service", "auto", []),
        ("executor-service", "execute", [[{"func": "drive", "args": []}], False, False]),
        (
            "executor-service",
            "execute",
            [[{"func": "system", "args": [f"touch {mark}"]}], False, False],
        ),
        ("executor-service", "estop", []),
        (
            "broker-service",
            "set_option",
            [{"exec_timeout": {".*": 3600}, "health_check_interval": 50.0}],
        ),
        (
            "broker-service",
            "update_gamepads",
            [{"0": {"lx": 0.0, "ly": 1.0, "rx": 0.0, "ry": 0.0, "btn": 0}}],
        ),
        ("broker-service", "take_control", ["stranger"]),
        ("device-service", "disable", []),
        ("device-service", "unsubscribe", []),
    ]
    payloads = [
        (service, rpc.encode(rpc.Request(1, method, args)).hex()) for service, method, args in calls
    ]
    arguments = str(robot.port_base), json.dumps(payloads)
    assert await trio.to_thread.run_sync(lambda: run_stranger(COMMANDS, *arguments)) == "True"
    await robot.logged("connection refused", uid=UID)
    assert await robot.call("mode") == "idle"
    assert (await robot.call("commander"))["commander"] is None
    assert await robot.call("set_option", {}) == {}
    assert robot.devices()[board.uid]["subscription"]
    assert not mark.exists()
    assert board.pulses == []
    # The robot still obeys its own user.
    await robot.call("auto")
    await board.moves()


@pytest.mark.parametrize("name", ["polar-bear", "limit-switch"])
async def test_device_of_another_user_does_not_block_a_real_one(robot: Robot, name: str) -> None:
    """An earlier device of another user gets neither the UID nor the commands of the real one."""
    require_another_user()
    await robot.start()
    true = Board() if name == "polar-bear" else Device(name)
    claim = encode(SubRes(0b111, 40, true.uid)).hex()
    said = await trio.to_thread.run_sync(
        lambda: run_stranger(CLAIM, str(robot.port_base + 4), claim)
    )
    assert said == "b''"
    await robot.logged("virtual device refused")
    assert await robot.call("list_uids") == []
    await robot.plug_pty(true)
    await robot.connected(true)
    assert await robot.call("list_uids") == [str(true.uid)]
    if isinstance(true, Board):
        robot.write("studentcode.py", COMMANDED)
        await robot.call("auto")
        await true.moves()
