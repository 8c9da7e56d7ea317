"""Drives eight motors back and forth."""

import math

MOTORS = [f"m{number}" for number in range(1, 9)]


def teleop_main():
    for number, motor in enumerate(MOTORS):
        Robot.write(motor, "duty_cycle", 0.2 + 0.7 * abs(math.sin(Field.clock() + number)))
