"""A robot that drives forward until its bumper touches something, and then follows the driver.

`rt run` in this directory runs it with the devices that rt.toml names. test_studentcode.py tests it
without a robot.
"""


def autonomous_main():
    """Drive forward until the bumper is pressed."""
    if Robot.get("bumper", "switch0"):
        Robot.write("left_motor", "duty_cycle", 0.0)
    else:
        Robot.write("left_motor", "duty_cycle", 0.5)


async def wave():
    """Move the arm up and down once."""
    for angle in (1.0, -1.0):
        Robot.write("arm", "servo0", angle)
        await Actions.sleep(0.3)


def teleop_main():
    """Follow the left stick, and wave when the driver presses A."""
    Robot.write("left_motor", "duty_cycle", Gamepad.get("joystick_left_y"))
    if Gamepad.get("button_a"):
        Actions.run(wave)
