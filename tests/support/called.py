"""Functions that tests run in separate processes."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from rt.errors import ConfigError, EmergencyStopException


class Point(msgspec.Struct):
    x: float
    y: float = 0.0


def say(*words: str, end: str = "") -> None:
    sys.stdout.write(f"{' '.join(words)}{end}\n")
    sys.stdout.flush()


def tell(point: Point, count: int = 1) -> None:
    for _ in range(count):
        say(*map(str, (type(point).__name__, point.x, point.y, os.getpid(), Path.cwd())))


def leave(code: int) -> None:
    sys.exit(code)


def fail() -> None:
    raise ZeroDivisionError("on purpose")


def misconfigured() -> None:
    raise ConfigError("the option is wrong", option="x")


def stop_everything() -> None:
    raise EmergencyStopException


async def stop_everything_in_a_task() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        raise EmergencyStopException


def ignore_the_request_to_end() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("deaf")
    time.sleep(1000)


def sleep() -> None:
    say("asleep")
    time.sleep(1000)


def start_another(*, output: bool = True) -> None:
    stream = None if output else subprocess.DEVNULL
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"], stdout=stream
    )
    say("grandchild", str(child.pid))


def start_another_and_stay() -> None:
    start_another()
    time.sleep(1000)


def fork_and_stay() -> None:
    if pid := os.fork():
        say("grandchild", str(pid))
    time.sleep(1000)


async def end_in_order() -> None:
    try:
        say("begun")
        await trio.sleep_forever()
    finally:
        say("ended in order")


def print_and_sleep() -> None:
    print("printed")  # noqa: T201 - without a flush, like user code
    time.sleep(1000)


def decorated(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def call(*args: object) -> object:
        return function(*args)

    return call


@decorated
async def speak(count: int) -> None:
    await trio.lowlevel.checkpoint()
    say("spoken", str(count))


class Counter:
    """A callable that is not a function."""

    def __init__(self, count: int) -> None:
        say("made", str(count))

    def __call__(self, word: str) -> None: ...


class Robot:
    @staticmethod
    def beep() -> None:
        say("beep")

    def walk(self) -> None: ...


EMERGENCY_AT_SIGTERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(255))
print("armed", flush=True)
time.sleep(1000)
"""
