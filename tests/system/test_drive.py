"""Driving from the gamepad to the motor, and the modes."""

import json
import textwrap

import pytest
import trio
from support.robot import Device, Plug, Robot

from rt.protocol import datagrams
from rt.protocol.datagrams import GamepadState
from rt.remote import DatagramNode

pytestmark = pytest.mark.system


def pushed(y: float) -> GamepadState:
    return GamepadState(0.0, y, 0.0, 0.0, 0)


async def test_gamepad_moves_a_motor_and_idle_stops_it(robot: Robot, plug: Plug) -> None:
    motor, switch = Device("polar-bear"), Device("limit-switch")
    await robot.start("--teleop-needs-gamepad")
    await plug(motor)
    await plug(switch)
    await robot.connected(motor, switch)

    async with trio.open_nursery() as driver:
        driver.start_soon(robot.drive, pushed(0.5))
        await robot.call("teleop")
        since = await motor.written(duty_cycle=0.5)
        driver.cancel_scope.cancel()
    async with trio.open_nursery() as driver:
        driver.start_soon(robot.drive, pushed(-0.25))
        await motor.written(duty_cycle=-0.25, since=since)
        await updated(robot, motor.uid, duty_cycle=-0.25)

        before = len(motor.messages), len(switch.messages)
        await robot.call("idle")
        since = await motor.disabled(before[0])
        await switch.disabled(before[1])
        assert motor.writes(since) == 0
        driver.cancel_scope.cancel()
    assert motor.emulated.values["duty_cycle"] == 0.0
    assert await robot.stop() == 0
    assert robot.leftovers() == []


async def updated(robot: Robot, uid: int, **values: float) -> None:
    """Wait for an update datagram with these values."""
    node = DatagramNode.from_address(f"udp://224.1.1.1:{robot.port_base + 3}", bind=True)
    with trio.fail_after(20):
        async with node:
            while True:
                _, payload = await node.recv()
                if values.items() <= datagrams.decode_devices(payload).get(uid, {}).items():
                    return


async def test_motor_rests_while_the_station_is_silent(robot: Robot) -> None:
    motor = Device("polar-bear")
    await robot.start()
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    await robot.call("teleop")
    async with trio.open_nursery() as driver:
        driver.start_soon(robot.drive, pushed(0.5))
        since = await motor.written(duty_cycle=0.5)
        driver.cancel_scope.cancel()
    await motor.written(duty_cycle=0.0, since=since)
    await robot.logged("gamepad reads neutral")


async def test_log_names_the_end_of_the_mode_as_reason(robot: Robot) -> None:
    robot.write(
        "studentcode.py", 'def autonomous_setup():\n    Robot.write("motor", "duty_cycle", 0.5)\n'
    )
    motor = Device("polar-bear")
    await robot.start("--dev-name", f"motor:{motor.uid}")
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    await robot.call("auto")
    entry = await robot.logged("all devices disabled")
    assert (entry["reason"], entry["writer"]) == ("the mode has ended", "team code")
    assert await robot.stop() == 0


async def test_autonomous_runs_actions_and_reads_a_neutral_gamepad(robot: Robot) -> None:
    robot.write(
        "studentcode.py",
        """
async def sweep():
    for step in range(1, 5):
        Robot.write("motor", "duty_cycle", step / 10)
        await Actions.sleep(0.1)

def autonomous_setup():
    print("stick", Gamepad.get("joystick_left_y"))
    Actions.run(sweep)
""",
    )
    motor = Device("polar-bear")
    await robot.start()
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    async with trio.open_nursery() as driver:
        driver.start_soon(robot.drive, pushed(0.5))
        await robot.call("auto")
        for step in range(1, 5):
            await motor.written(duty_cycle=step / 10)
        driver.cancel_scope.cancel()
    assert (await robot.logged("stick "))["event"] == "stick 0.0"
    since = len(motor.messages)
    await robot.call("idle")
    await motor.disabled(since)


async def test_execute_runs_functions_one_by_one(robot: Robot) -> None:
    robot.write("studentcode.py", "def add(a, b):\n    print('sum', a + b)\n")
    await robot.start()
    await robot.call("execute", [{"func": "add", "args": [20, 22]}], True)
    assert (await robot.logged("sum"))["event"] == "sum 42"
    assert await robot.call("mode") == "idle"


async def test_execute_accepts_only_functions_of_team_code(robot: Robot) -> None:
    code = """
        from os import system
        from subprocess import run
        def lift(height: int, name: str = "arm"):
            print("lifted", name, height)
        class Arm: pass
        run_it = exec
        """
    robot.write("studentcode.py", textwrap.dedent(code))
    await robot.start()
    marks = [robot.folder / f"called{number}" for number in range(3)]
    hostile = [("system", [f"touch {marks[0]}"]), ("run", [["touch", str(marks[1])]])]
    hostile += [
        ("run_it", [f"open({str(marks[2])!r}, 'w')"]),
        ("Arm", []),
        ("print", ["x"]),
        ("__import__", ["os"]),
    ]
    for name, args in hostile:
        done = await robot.command(
            "call", "execute", json.dumps([{"func": name, "args": args}]), "true"
        )
        assert done.returncode == 1
        assert (
            f"{name} cannot be executed" in done.stderr or f"has no function {name}" in done.stderr
        )
    for args, said in (
        ([], "cannot be called with 0"),
        (["1"], "argument height came as '1'"),
        ([1, 2], "argument name"),
    ):
        done = await robot.command(
            "call", "execute", json.dumps([{"func": "lift", "args": args}]), "true"
        )
        assert done.returncode == 1
        assert said in done.stderr
    await robot.call("execute", [{"func": "lift", "args": [3]}], True)
    assert (await robot.logged("lifted"))["event"] == "lifted arm 3"
    assert not any(mark.exists() for mark in marks)


async def test_invalid_code_is_refused_with_file_and_line(robot: Robot) -> None:
    robot.write("studentcode.py", "def teleop_main(:\n")
    await robot.start()
    done = await robot.command("call", "teleop")
    assert done.returncode == 1
    assert "studentcode.py:1: invalid syntax" in done.stderr
    robot.write("studentcode.py", "async def teleop_main():\n    pass\n")
    done = await robot.command("call", "teleop")
    assert "must be a plain function" in done.stderr
    robot.write("studentcode.py", "def teleop_setup():\n    pass\n")
    await robot.call("teleop")
    await robot.logged("mode ended", mode="teleop", reason="all functions of team code have ended")
    assert await robot.call("mode") == "idle"
