"""The log of a robot: live, from other computers, across restarts, and in files."""

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from support.robot import PATIENCE, Robot

pytestmark = pytest.mark.system

TALKS = """
def teleop_main():
    print("round", Field.clock() >= 0)


async def wave():
    print("waving")
    raise ValueError("arm is stuck")


def teleop_setup():
    Actions.run(wave)
"""
DIES = """
import os, signal


def teleop_main():
    if Field.clock() < 0.5:
        return  # whoever called teleop gets an answer
    for number in range(300):
        print("last words", number)
    os.kill(os.getpid(), signal.SIGKILL)
"""
FLOODS = """
def teleop_main():
    for _ in range(100):
        print("x" * 200)
"""
DEFAULT_LOG = ("state", "rt")


class Watcher:
    """A running `rt logs` of a robot."""

    def __init__(self, robot: Robot, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors = ""
        self._news = trio.Event()
        robot.nursery.start_soon(self._read, process.stdout, False)
        robot.nursery.start_soon(self._read, process.stderr, True)

    async def _read(self, stream: Any, is_error: bool) -> None:
        rest = b""
        async for chunk in stream:
            if is_error:
                self.errors += chunk.decode()
            else:
                *lines, rest = (rest + chunk).split(b"\n")
                self.lines += [line.decode() for line in lines]
            self._news.set()
            self._news = trio.Event()

    async def until(self, condition: Callable[["Watcher"], bool]) -> None:
        with trio.move_on_after(PATIENCE):
            while not condition(self):
                await self._news.wait()
            return
        raise AssertionError("\n".join([*self.lines[-50:], self.errors]))

    async def shows(self, *parts: str) -> str:
        await self.until(
            lambda self: any(all(part in line for part in parts) for line in self.lines)
        )
        return next(line for line in self.lines if all(part in line for part in parts))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    async def end(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        with trio.fail_after(PATIENCE):
            code: int = await self.process.wait()
        return code


Watch = Callable[..., Awaitable[Watcher]]


@pytest.fixture
async def watch(robot: Robot) -> AsyncIterator[Watch]:
    """Start `rt logs` processes, which are killed at the end."""
    processes: list[trio.Process] = []

    async def start(*arguments: str) -> Watcher:
        process = await trio.lowlevel.open_process(
            robot.arguments("logs", *arguments),
            cwd=robot.folder / "empty",
            env=robot.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        return Watcher(robot, process)

    yield start
    for process in processes:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


def log_file(robot: Robot) -> Path:
    return robot.folder.joinpath(*DEFAULT_LOG, f"{robot.name}.log")


def kept(robot: Robot) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_file(robot).read_text().splitlines()]


async def test_prints_of_team_code_show_mode_and_time(robot: Robot, watch: Watch) -> None:
    robot.write("studentcode.py", TALKS)
    await robot.start()
    person, program = await watch("--since", "1h"), await watch("--since", "1h", "--json")
    await person.shows("robot ready")
    await program.shows("robot ready")
    await robot.call("teleop")
    line = await person.shows(" print | teleop ", " s | round True")
    assert "{" not in line
    said = json.loads(await program.shows('"waving"'))
    assert said["source"] == "print"
    assert (said["app"], said["mode"], said["action"], said["instance"]) == (
        "executor",
        "teleop",
        "wave",
        robot.name,
    )
    assert said["pid"] == robot.child("executor")
    assert said["clock"] >= 0
    await person.shows("arm is stuck", "studentcode.py")
    assert await person.end(signal.SIGINT) == 0
    assert await program.end() == 0
    assert person.errors == program.errors == ""


async def test_events_are_selected_by_level_and_process(robot: Robot, watch: Watch) -> None:
    robot.write("studentcode.py", TALKS)
    await robot.start()
    bad = await watch("--since", "1h", "--level", "error", "--json")
    ours = await watch("--since", "1h", "--app", "executor", "--json")
    await ours.shows("child is ready")  # what is said about it is of interest too
    await robot.call("teleop")
    await bad.shows("arm is stuck")
    await ours.shows("round")
    assert {event["level"] for event in bad.events} == {"error"}
    assert {
        event["app"] if event["app"] != "root" else event["child"] for event in ours.events
    } == {"executor"}
    for watcher in (bad, ours):
        assert await watcher.end() == 0


async def test_follower_shows_every_event_across_a_restart(robot: Robot, watch: Watch) -> None:
    await robot.start()
    watcher = await watch("--since", "1h", "--json")
    await watcher.shows("robot ready")
    assert await robot.stop() == 0
    await watcher.until(lambda watcher: "disconnected from" in watcher.errors)
    await robot.start()
    await watcher.until(lambda watcher: "connected to the robot" in watcher.errors)
    await watcher.until(
        lambda watcher: [e["event"] for e in watcher.events].count("robot ready") == 2
    )
    # The file is written shortly after the event is published.
    assert await robot.stop() == 0
    await watcher.until(lambda watcher: watcher.errors.count("disconnected from") == 2)
    shown = [(event["timestamp"], event["event"]) for event in watcher.events]
    assert sorted(shown) == sorted((event["timestamp"], event["event"]) for event in kept(robot))
    assert len(set(shown)) == len(shown)
    assert await watcher.end() == 0


async def test_last_output_of_a_killed_executor_is_logged(robot: Robot, watch: Watch) -> None:
    robot.write("studentcode.py", DIES)
    await robot.start()
    watcher = await watch("--since", "1h", "--json")
    await watcher.shows("robot ready")
    await robot.call("teleop")
    await robot.logged("child is ready", child="executor", count=2)
    await watcher.until(
        lambda watcher: [e["event"] for e in watcher.events].count("child is ready") >= 4
    )
    assert await robot.stop() == 0
    expected = [f"last words {number}" for number in range(300)]
    for events in (robot.log, watcher.events, kept(robot)):
        assert [event["event"] for event in events if event.get("source") == "print"] == expected
    await watcher.end()


async def test_subscriber_that_does_not_read_does_not_delay_the_robot(
    robot: Robot, watch: Watch
) -> None:
    robot.write("studentcode.py", FLOODS)
    await robot.start()
    asleep, awake = await watch("--since", "1h"), await watch("--since", "1h", "--json")
    await asleep.shows("robot ready")
    await awake.shows("robot ready")
    asleep.process.send_signal(signal.SIGSTOP)
    await robot.call("teleop")
    await awake.until(lambda watcher: len(watcher.lines) > 4000)
    assert await robot.call("mode") == "teleop"
    await robot.call("idle")
    assert await awake.end() == 0
    assert awake.errors == ""
    assert await robot.stop() == 0
    asleep.process.send_signal(signal.SIGCONT)
    await asleep.until(lambda watcher: "disconnected from" in watcher.errors)
    assert await asleep.end() == 0


async def test_logs_without_a_robot_name_the_remedy_at_once(robot: Robot) -> None:
    done = await robot.command("logs")
    assert done.returncode != 0
    assert "rt run" in done.stderr
    done = await robot.command("logs", f"tcp://127.0.0.1:{robot.port_base + 1}")
    assert done.returncode != 0
    assert "no robot answers" in done.stderr
    await robot.start()
    assert await robot.stop() == 0
    done = await robot.command("logs", "--since", "1h")
    assert done.returncode == 0
    assert "stopped" in done.stdout
    assert "no robot runs" in done.stderr
    done = await robot.command("logs", "--no-follow", "--level", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = await robot.command("logs", str(log_file(robot)), "--json")
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == [
        e["event"] for e in kept(robot)
    ]


async def test_logs_end_when_their_output_is_closed(robot: Robot) -> None:
    await robot.start()
    reading, writing = os.pipe()
    process = await trio.lowlevel.open_process(
        robot.arguments("logs"),
        cwd=robot.folder / "empty",
        env=robot.environment,
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)
    os.close(reading)
    with trio.fail_after(PATIENCE):
        assert await process.wait() == 0


async def test_full_disk_is_logged_once(robot: Robot) -> None:
    await robot.start("--log-file", "/dev/full")
    await robot.logged("log file not writable")
    assert await robot.call("mode") == "idle"
    assert await robot.stop() == 0
    assert len([entry for entry in robot.log if "log file not writable" in entry["event"]]) == 1


async def test_logs_of_another_computer_are_shown_by_address(robot: Robot, watch: Watch) -> None:
    await robot.start()
    watcher = await watch(f"tcp://127.0.0.1:{robot.port_base + 1}", "--json")
    with trio.fail_after(PATIENCE):
        while not watcher.lines:
            await robot.call("teleop")
            await robot.call("idle")
    assert watcher.events[0]["instance"] == robot.name
    assert await watcher.end() == 0
