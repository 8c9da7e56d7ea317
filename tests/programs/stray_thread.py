"""A thread that continues to write after its mode has ended."""

import threading
import time


def stray():
    while True:
        Robot.write("motor", "duty_cycle", 0.5)
        time.sleep(0.005)


def teleop_setup():
    threading.Thread(target=stray, daemon=True).start()


def teleop_main():
    pass
