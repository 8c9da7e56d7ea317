"""The team code of `rt demo`: two motors follow the sticks of a gamepad, and a servo waves.

Like all team code, it uses Robot, Gamepad, Actions and Field without an import.
"""

import math


async def wave():
    """Move the servo back and forth while the mode runs."""
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
    behind, ahead = Robot.get("bumper", "switch0"), Robot.get("bumper", "switch1")
    if (behind and forward < 0) or (ahead and forward > 0):
        forward = 0.0
    Robot.write("left_motor", "duty_cycle", max(-1.0, min(1.0, forward + turn)))
    Robot.write("right_motor", "duty_cycle", max(-1.0, min(1.0, forward - turn)))
