"""Exits its own process while the motor turns."""

import os

calls = 0


def teleop_main():
    global calls
    calls += 1
    Robot.write("motor", "duty_cycle", 0.5)
    if calls > 10:
        os._exit(3)
