"""Killed and stopped processes, and their effect on the motors."""

import os
import signal
import socket

import pytest
import trio
from support.robot import BINARY, Device, Plug, Robot, uid_of

from rt.protocol import frames
from rt.protocol.datagrams import GamepadState
from rt.protocol.message import Ping

pytestmark = pytest.mark.system

FORWARD = GamepadState(0.0, 0.5, 0.0, 0.0, 0)


async def driving(robot: Robot, plug: Plug) -> tuple[Device, Device]:
    """Start a robot whose motor turns; return the motor and a switch."""
    motor, switch = Device("polar-bear"), Device("limit-switch")
    await robot.start("--teleop-needs-gamepad")
    await plug(motor)
    await plug(switch)
    await robot.connected(motor, switch)
    robot.nursery.start_soon(robot.drive, FORWARD)
    await robot.call("teleop")
    await motor.written(duty_cycle=0.5)
    return motor, switch


async def test_killed_executor_disables_every_device_and_restarts_idle(
    robot: Robot, plug: Plug
) -> None:
    motor, switch = await driving(robot, plug)
    since = len(motor.messages), len(switch.messages)
    os.kill(robot.child("executor"), signal.SIGKILL)
    await motor.disabled(since[0])
    await switch.disabled(since[1])
    await robot.logged("child is ready", child="executor", count=2)
    assert await robot.call("mode") == "idle"
    await robot.call("teleop")
    await motor.written(duty_cycle=0.5, since=len(motor.messages))


async def test_restarted_device_process_finds_every_device_again(robot: Robot, plug: Plug) -> None:
    motor, switch = await driving(robot, plug)
    os.kill(robot.child("device"), signal.SIGKILL)
    await robot.logged("child is ready", child="device", count=2)
    await robot.connected(motor, switch, since=1)
    await motor.written(duty_cycle=0.5, since=len(motor.messages))


async def test_killed_root_ends_all_processes_and_disables_every_device(
    robot: Robot, plug: Plug
) -> None:
    motor, switch = await driving(robot, plug)
    since = len(motor.messages), len(switch.messages)
    os.kill(robot.root(), signal.SIGKILL)
    await motor.disabled(since[0])
    await switch.disabled(since[1])
    await robot.wait_all_exited()
    await robot.wait()

    await robot.start()
    assert any("removed" in entry["event"] for entry in robot.log)
    assert await robot.stop() == 0


@pytest.mark.skipif(BINARY is None, reason="only the executable has an outer process")
async def test_killed_outer_process_of_the_executable_ends_the_robot(robot: Robot) -> None:
    motor, _ = await driving(robot, robot.plug_tcp)
    since = len(motor.messages)
    assert robot.process is not None
    root = robot.root()
    robot.process.kill()
    await motor.disabled(since)
    await robot.wait_all_exited(root)
    assert robot.leftovers() == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_the_robot_in_order(robot: Robot, signum: signal.Signals) -> None:
    motor, switch = await driving(robot, robot.plug_tcp)
    since = len(motor.messages), len(switch.messages)
    assert robot.process is not None
    robot.process.send_signal(signum)
    robot.process.send_signal(signum)
    await motor.disabled(since[0])
    await switch.disabled(since[1])
    assert await robot.wait() == 0
    assert robot.leftovers() == []
    assert not robot.instance.directory.exists()


async def test_emergency_stop_disables_devices_and_ends_the_robot(robot: Robot) -> None:
    motor, _ = await driving(robot, robot.plug_tcp)
    since = len(motor.messages)
    await robot.command("call", "estop")
    await motor.disabled(since)
    assert await robot.wait() == 255


async def test_second_robot_of_the_same_name_names_the_first(robot: Robot) -> None:
    await robot.start()
    done = await robot.command("run")
    assert done.returncode == 75
    assert f"process {robot.root()}" in done.stderr
    assert "--instance NAME" in done.stderr
    assert await robot.call("mode") == "idle"


async def test_robot_whose_ports_are_taken_ends_with_the_reason(robot: Robot) -> None:
    with socket.create_server(("127.0.0.1", robot.port_base)):
        done = await robot.command("run", "--port-base", str(robot.port_base))
    assert done.returncode == 75, done.stderr
    assert str(robot.port_base) in done.stderr
    assert robot.leftovers() == []


async def test_call_without_a_robot_says_how_to_start_one(robot: Robot) -> None:
    done = await robot.command("call", "teleop")
    assert done.returncode == 1
    assert "start one with `rt run --instance" in done.stderr


async def test_invalid_bytes_on_a_line_are_counted(robot: Robot) -> None:
    switch = Device("limit-switch")
    await robot.start()
    await robot.plug_tcp(switch)
    await robot.connected(switch)
    uid = uid_of("encoder", 9)
    garbage = [
        os.urandom(64).replace(b"\0", b"\1") + b"\0",
        frames.encode(Ping())[:-2] + b"\0",
        b"\x02\x10\x02\x11\0",
        bytes([1]) * 300 + b"\0",
        b"\x07" * (1 << 20) + b"\0",
    ]
    async with await trio.open_tcp_stream("127.0.0.1", robot.port_base + 4) as stream:
        noisy = Device("encoder", 9)
        reader = frames.FrameReader()

        async def play() -> None:
            while True:
                for item in reader.feed(await stream.receive_some()):
                    for answer in noisy.emulated.handle(item, 0.0):
                        await stream.send_all(frames.encode(answer))

        async with trio.open_nursery() as player:
            player.start_soon(play)
            await robot.connected(noisy)
            player.cancel_scope.cancel()
        for noise in garbage:
            await stream.send_all(noise)
        with trio.fail_after(30):
            while robot.devices()[uid]["bad_frames"] < len(garbage):
                await stream.send_all(b"\x02\x10\x02\x11\0")
    rows = robot.devices()
    assert rows[uid]["bad_frames"] >= len(garbage)
    assert rows[switch.uid]["connected"]
    assert rows[switch.uid]["bad_frames"] == 0
    assert len([entry for entry in robot.log if entry["event"] == "child is ready"]) == 3


async def test_stopped_root_disables_every_device(robot: Robot, plug: Plug) -> None:
    motor, _ = await driving(robot, plug)
    since = len(motor.messages)
    os.kill(robot.root(), signal.SIGSTOP)
    try:
        await motor.disabled(since)
    finally:
        os.kill(robot.root(), signal.SIGCONT)
    assert await robot.stop() == 0
