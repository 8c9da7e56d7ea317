"""Starts processes that leave their process group, session, environment and parent."""

import subprocess
import sys

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)"]
DAEMON = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("helper", os.getpid(), flush=True)
        os.execve(sys.argv[1], sys.argv[1:], {})
"""


def teleop_setup():
    print("helper", subprocess.Popen(SLEEP).pid)
    print("helper", subprocess.Popen(SLEEP, start_new_session=True).pid)
    print("helper", subprocess.Popen(SLEEP, start_new_session=True, env={}).pid)
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    print("helper", subprocess.Popen(SLEEP, start_new_session=True, env={}, **silent).pid)
    subprocess.Popen([*SLEEP[:-1], DAEMON, *SLEEP], env={}).wait()


def teleop_main():
    Robot.write("motor", "duty_cycle", 0.5)
