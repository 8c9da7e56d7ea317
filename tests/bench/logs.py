"""Benchmarks of the log: the cost of a log call, and a subscriber of a robot that logs a lot."""

import json
import math
import subprocess
import sys
from typing import Any

import trio
from bench.figures import Figure, Work
from support.robot import Robot

from rt.executor.output import LINES
from rt.logs.feed import LogFeed
from rt.protocol.logevent import GapCounter

CALLS = 20_000
RATE = int(LINES.per_second)
"""Lines per second: as many as a program may log for long."""
PERIOD = 0.05
"""The period (s) of the main function that prints them."""

CALLER = """
import json, statistics, sys, time
from rt import log

with open(sys.argv[1], "w") as stream:
    log.configure(stream=stream, app="executor", pid=12345, instance="default")
    logger = log.get_logger()
    times = []
    for number in range({calls}):
        began = time.perf_counter_ns()
        logger.info("the robot drives", source="print", mode="teleop", clock=12.345)
        times.append((time.perf_counter_ns() - began) / 1000)
        if number % 100 == 99:
            time.sleep(0.002)  # time for the reader, as between two calls of team code
times.sort()
print(json.dumps([statistics.median(times), times[int(len(times) * 0.99)]]))
"""

PRINTER = """
count = 0


def teleop_main():
    global count
    for _ in range({burst}):
        print("line", count)
        count += 1
"""


def log_call() -> list[Figure]:
    """Measure a log call of a child whose lines another process reads."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as reader:
        assert reader.stdin is not None
        fd = reader.stdin.fileno()
        done = subprocess.run(
            [sys.executable, "-c", CALLER.format(calls=CALLS), f"/proc/self/fd/{fd}"],
            pass_fds=(fd,),
            capture_output=True,
            check=True,
        )
        reader.stdin.close()
    median, late = json.loads(done.stdout)
    return [
        Figure("log call for the caller, median", median, "us", 15.0, CALLS),
        Figure("log call for the caller, p99", late, "us", None, CALLS),
    ]


async def many_lines(robot: Robot, seconds: int) -> list[Figure]:
    """Measure one subscriber while team code prints as much as it may."""
    robot.write("studentcode.py", PRINTER.format(burst=int(RATE * PERIOD)))
    await robot.start()
    work = Work(robot.root())
    gaps = GapCounter()
    seen: list[int] = []
    began = ended = math.nan
    with LogFeed(
        f"ipc://{robot.instance.directory}/log-frontend.sock", ["info", "warning"]
    ) as feed:
        await feed.change()
        await robot.call("teleop")
        with trio.move_on_after(seconds + 10):
            while len(seen) < RATE * seconds:
                event: dict[str, Any] = await feed.event()
                gaps.count(event)
                if event.get("source") == "print":
                    began = trio.current_time() if math.isnan(began) else began
                    ended = trio.current_time()
                    seen.append(int(event["event"].removeprefix("line ")))
        share = work.share()
        await robot.call("idle")
    await robot.stop()
    lost_before = seen[-1] + 1 - seen[0] - len(seen) - gaps.missed
    return [
        Figure(
            "log lines to one subscriber, missed",
            gaps.missed + lost_before,
            "lines",
            0.0,
            len(seen),
        ),
        Figure(
            "log lines to one subscriber", len(seen) / (ended - began), "lines/s", None, len(seen)
        ),
        Figure(f"root, while {RATE} lines a second go through it", share, "cores", None, 1),
    ]
