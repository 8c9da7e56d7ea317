"""Starts processes that ignore SIGTERM, one of them in another session."""

import subprocess

IGNORE = "trap '' TERM; while :; do sleep 0.1; done"


def teleop_setup():
    for session in (False, True):
        subprocess.Popen(["/bin/sh", "-c", IGNORE], start_new_session=session)
    print("started processes")


def teleop_main():
    Robot.write("motor", "duty_cycle", 0.5)
