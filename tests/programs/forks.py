"""A fork that continues to write after its mode has ended."""

import os
import time


def teleop_setup():
    if os.fork() == 0:
        os.setsid()
        while True:
            try:
                Robot.write("motor", "duty_cycle", -0.9)
            except Exception:
                pass
            time.sleep(0.01)


def teleop_main():
    Robot.write("motor", "duty_cycle", 0.5)
