"""The robots, devices and gamepads that `start_robot` gives to a test."""

from pathlib import Path
from typing import Any

import pytest
import trio
from support.robot import CATALOG

from rt.errors import (
    DeviceError,
    ExecutionError,
    LocalProtocolError,
    ProcessStateError,
    RemoteCallError,
)
from rt.testing import StartRobot
from rt.testing.gamepads import state_of

pytest_plugins = ["rt.testing"]

DEVICES = {"motor": "polar-bear@1", "switch": 'limit-switch@1:{"switch1": true}'}
PROGRAM = """
print("loaded")


def autonomous_main():
    Robot.write("motor", "duty_cycle", 0.5 if Robot.get("switch", "switch1") else -0.25)


def teleop_main():
    Robot.write("motor", "duty_cycle", Gamepad.get("joystick_right_x", 1))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "studentcode.py"
    path.write_text(PROGRAM)
    return path


async def test_code_reads_sensors_and_writes_to_devices(
    start_robot: StartRobot, program: Path
) -> None:
    robot = await start_robot(DEVICES, code=program)
    motor, switch = robot.devices["motor"], robot.devices["switch"]
    assert motor.is_disabled
    await robot.call("auto")
    assert await motor.wait_for("duty_cycle", 0.5) == 0.5
    assert not motor.is_disabled
    assert (await robot.logged("loaded"))["source"] == "print"
    await motor.wait_for("enc_pos", lambda degrees: degrees > 10)
    switch.set("switch1", False)
    await motor.wait_for("duty_cycle", -0.25)
    assert {"duty_cycle": 0.5} in motor.received
    await robot.idle()
    assert await robot.call("mode") == "idle"
    await motor.wait_for("duty_cycle", 0)


async def test_replugged_device_is_driven_again(start_robot: StartRobot, program: Path) -> None:
    robot = await start_robot(DEVICES, code=program)
    motor = robot.devices["motor"]
    await robot.call("auto")
    await motor.wait_for("duty_cycle", 0.5)
    await motor.unplug()
    await motor.unplug()
    assert robot.count_logged("device disconnected", uid=str(motor.uid)) == 1
    await motor.plug()
    await motor.wait_for("duty_cycle", 0.5)


async def test_driver_releases_sticks_when_the_robot_waits_for_that(
    start_robot: StartRobot, program: Path
) -> None:
    robot = await start_robot(DEVICES, code=program)
    motor = robot.devices["motor"]
    robot.set_gamepad(1, joystick_right_x=-0.5)
    await robot.call("teleop")
    await motor.wait_for("duty_cycle", -0.5)
    robot.unplug_gamepads()
    await robot.logged("driver silent")
    await motor.wait_for("duty_cycle", 0.0)
    robot.set_gamepad(1, joystick_right_x=0.25)
    await motor.wait_for("duty_cycle", 0.25)


async def test_two_robots_run_next_to_each_other(start_robot: StartRobot, program: Path) -> None:
    robots = [await start_robot(DEVICES, code=program) for _ in range(2)]
    await robots[0].call("auto")
    await robots[0].devices["motor"].wait_for("duty_cycle", 0.5)
    assert robots[1].devices["motor"].received == []
    assert await robots[1].call("mode") == "idle"


async def test_options_are_those_of_rt_toml(start_robot: StartRobot) -> None:
    options = {"exec_timeout": {".*_main": 0.1}, "debug": True, "dev_name": {"arm": "5"}}
    robot = await start_robot(DEVICES, options=options)
    assert await robot.call("get_option", "exec_timeout") == {".*_setup": 1.0, ".*_main": 0.1}
    assert await robot.call("get_option", "dev_name.arm") == "5"
    assert await robot.call("get_option", "dev_name.motor") == str(robot.devices["motor"].uid)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"options": {"log_lvel": "info"}}, ProcessStateError, "did you mean log_level"),
        ({"devices": ["polar-bea@1"]}, DeviceError, "did you mean polar-bear"),
        ({"devices": ['limit-switch@1:{"x": 1}']}, DeviceError, "x"),
        ({"code": "absent.py"}, ExecutionError, "no team code at"),
    ],
)
async def test_mistake_at_the_start_is_the_error_itself(
    start_robot: StartRobot, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await start_robot(**arguments)


async def test_mistake_of_a_test_is_an_error_with_the_nearest_name(start_robot: StartRobot) -> None:
    robot = await start_robot(["limit-switch@1"], timeout=0.5)
    switch = robot.devices["limit-switch@1"]
    with pytest.raises(RemoteCallError, match="did you mean auto"):
        await robot.call("autt")
    with pytest.raises(DeviceError, match="no parameter 'switch'; did you mean"):
        switch.get("switch")
    with pytest.raises(DeviceError):
        switch.set("switch0", "on")
    with pytest.raises(LocalProtocolError):
        robot.set_gamepad(joystick_left_x=2)
    with pytest.raises(AssertionError, match=r"switch0 is False, expected True within 0.5 s"):
        await switch.wait_for("switch0", True)
    with pytest.raises(AssertionError, match="expected a value for which bool is true"):
        await switch.wait_for("switch0", bool)
    with pytest.raises(AssertionError, match=r"did not log 'mode began' with .*within 0.5 s"):
        await robot.logged("mode began", mode="auto")


async def test_robot_that_has_stopped_itself_ends_the_test_in_order(
    start_robot: StartRobot,
) -> None:
    robot = await start_robot()
    with trio.move_on_after(1):
        await robot.call("estop")
    await robot.logged("emergency stop")


def test_gamepad_has_the_names_of_team_code() -> None:
    gamepad = CATALOG["gamepad"]
    state = state_of(gamepad, {"joystick_right_y": 0.5, "button_b": True, "button_a": False})
    assert (state.lx, state.ly, state.rx, state.ry, state.btn) == (0.0, 0.0, 0.0, 0.5, 2)
    with pytest.raises(DeviceError, match="button_a"):
        state_of(gamepad, {"buton_a": True})
