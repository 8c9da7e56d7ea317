"""Tests of studentcode.py with an emulated robot: `python -m pytest` in this directory."""

import pytest

pytest_plugins = ["rt.testing"]
pytestmark = pytest.mark.trio

DEVICES = {"left_motor": "polar-bear@1", "bumper": "limit-switch@1", "arm": "servo-motor@1"}


async def test_motor_stops_at_the_bumper(start_robot):
    robot = await start_robot(DEVICES, code="studentcode.py")
    motor, bumper = robot.devices["left_motor"], robot.devices["bumper"]
    await robot.call("auto")
    await motor.wait_for("duty_cycle", 0.5)
    bumper.set("switch0", True)
    await motor.wait_for("duty_cycle", 0.0)


async def test_motor_follows_the_stick_and_stops_without_driver(start_robot):
    robot = await start_robot(DEVICES, code="studentcode.py")
    robot.set_gamepad(joystick_left_y=-0.3)
    await robot.call("teleop")
    await robot.devices["left_motor"].wait_for("duty_cycle", -0.3)
    robot.unplug_gamepads()
    await robot.logged("driver silent")
    await robot.devices["left_motor"].wait_for("duty_cycle", 0.0)


async def test_arm_waves_when_a_is_pressed(start_robot):
    robot = await start_robot(DEVICES, code="studentcode.py")
    arm = robot.devices["arm"]
    robot.set_gamepad(button_a=True)
    await robot.call("teleop")
    await arm.wait_for("servo0", 1.0)
    await arm.wait_for("servo0", -1.0)
