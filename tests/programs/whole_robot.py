"""A program of realistic size, without problems.

It uses classes, constants, actions, closures and generators.
"""

import functools
import math
import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field

LEFT, RIGHT = "left_motor", "right_motor"
MOTOR = "motor"
ARM = "arm"
FULL = 1.0
HALF = FULL / 2
BACK = -HALF
NAMES = {"l": LEFT, "r": RIGHT}
SAFE = {name: 0.0 for name in NAMES.values()}
speed = 0.0
history = deque(maxlen=10)


@dataclass
class Pid:
    kp: float
    ki: float = 0.0
    total: float = field(default=0.0, init=False)

    def step(self, error, elapsed=0.05):
        self.total += error * elapsed
        return self.kp * error + self.ki * self.total


class Drive:
    limit = FULL

    def __init__(self, *motors):
        self.motors = motors
        self.pid = Pid(0.5)

    def __call__(self, forward, turn=0.0):
        for sign, motor in zip((1, -1), self.motors):
            Robot.write(motor, "duty_cycle", self.clamp(forward + sign * turn))

    @classmethod
    def clamp(cls, value):
        return max(-cls.limit, min(cls.limit, value))


drive = Drive(LEFT, RIGHT)
lock = threading.Lock()


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        print("calls", function.__name__, sep=" ")
        return function(*args, **kwargs)

    return wrapper


def waves(count):
    for number in range(count):
        yield math.sin(number)


async def pause(seconds: float = 0.1):
    await Actions.sleep(seconds)


async def wave(times=3, *, amplitude=HALF):
    for angle in waves(times):
        Robot.write(ARM, "servo0", angle * amplitude)
        await pause()
    else:
        Robot.write(ARM, "servo0", 0.0)


async def forever():
    while True:
        Robot.write(ARM, "servo1", random.uniform(-1, 1))
        await pause(0.5)


async def until_pressed():
    while True:
        if Robot.get("bumper", "switch0"):
            return
        await Actions.sleep(0.02)


async def both():
    await until_pressed()
    await wave(2, amplitude=FULL)
    if not Actions.is_running(forever):
        Actions.run(forever)


@logged
def stop():
    for motor, value in SAFE.items():
        Robot.write(motor, "duty_cycle", value)


def autonomous_setup():
    time.sleep(0.1)
    stop()
    Actions.run(both)


def autonomous_main():
    began = Field.clock()
    match int(began) % 3:
        case 0:
            drive(HALF)
        case 1 | 2 as phase:
            drive(BACK, turn=0.1 * phase)
        case _:
            stop()
    while Field.clock() - began < 0.001:
        pass


def teleop_setup():
    global speed
    speed = 0.0
    print("on side", Field.alliance.name, Field.alliance is Alliance.BLUE, Field.mode)


def teleop_main():
    global speed
    if (forward := Gamepad.get("joystick_left_y")) or Gamepad.get("l_bumper", 1):
        speed = forward
    history.append(speed)
    with lock:
        average = sum(history) / len(history)
    drive(average, Gamepad.get(param="joystick_right_x", gamepad=0))
    if Gamepad.get("button_a"):
        Actions.run(wave, 4)
    pressed = [name for name in ("button_x", "button_y") if Gamepad.get(name)]
    for index, _ in enumerate(pressed):
        Robot.write("koala", f"duty_cycle_{'ab'[index]}", 0.5)
    Robot.write("flag", "led1", bool(pressed))
    Robot.write("koala", "drive_mode_a", 1)
    Robot.write(*[MOTOR, "pid_pos_setpoint"], value=-1000.0 * math.pi)
    for motor in (LEFT, RIGHT):
        if abs(Robot.get(motor, "enc_vel")) > 100:
            try:
                stop()
            except ValueError as error:
                print(f"cannot stop: {error!r}")
            finally:
                break
