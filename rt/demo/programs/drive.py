"""The program of `rt demo`: two motors that follow the sticks of a gamepad, and a servo that waves.

It is a team's program like any other: Robot, Gamepad, Actions and Field are there without an
import.
"""

import math


async def wave():
    """Move the servo to and fro for as long as the mode lasts."""
    while True:
        Robot.write("arm", "servo0", math.sin(2 * Field.clock()))
        await Actions.sleep(0.1)


def autonomous_setup():
    Actions.run(wave)


def autonomous_main():
    Robot.write("left_motor", "duty_cycle", 0.2)
    Robot.write("right_motor", "duty_cycle", -0.2)


def teleop_setup():
    print("teleop begins")
    Actions.run(wave)


def teleop_main():
    forward, turn = Gamepad.get("joystick_left_y"), Gamepad.get("joystick_left_x") / 2
    if Robot.get("bumper", "switch0") and forward < 0 or Robot.get("bumper", "switch1") and forward > 0:
        forward = 0.0
    Robot.write("left_motor", "duty_cycle", max(-1.0, min(1.0, forward + turn)))
    Robot.write("right_motor", "duty_cycle", max(-1.0, min(1.0, forward - turn)))
