"""`rt write` drives a device exactly while the command runs."""

import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from support.driving import count_cut_offs
from support.robot import PATIENCE, Device, Robot

from rt.protocol.message import DevDisable

pytestmark = pytest.mark.system


class Command:
    """A running `rt write`."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        with trio.fail_after(PATIENCE):
            text = b""
            while not text.endswith(b"\n"):
                byte = await self.process.stdout.receive_some(1)
                assert byte, text
                text += byte
        return text.decode()

    async def errors(self) -> str:
        assert self.process.stderr is not None
        return (b"".join([chunk async for chunk in self.process.stderr])).decode()


def unpacked(robot: Robot) -> set[str]:
    """Return the unpacked directories of executables; none if rt runs from source."""
    return {path.name for path in (robot.folder / "tmp").iterdir()}


@asynccontextmanager
async def writing(robot: Robot, *arguments: str) -> AsyncIterator[Command]:
    before = unpacked(robot)
    process = await trio.lowlevel.open_process(
        robot.arguments("write", *arguments),
        cwd=robot.folder / "empty",
        env=robot.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            with trio.fail_after(PATIENCE):
                while unpacked(robot) - before:  # noqa: ASYNC110
                    await trio.sleep(0.01)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            await stream.aclose()


@pytest.fixture
async def motor(robot: Robot) -> Device:
    """A motor named ``motor`` of an idle robot."""
    device = Device("polar-bear")
    await robot.start()
    await robot.plug_tcp(device)
    await robot.connected(device)
    return device


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_motor_runs_until_the_command_ends(
    robot: Robot, motor: Device, signum: signal.Signals
) -> None:
    async with writing(robot, "motor", "duty_cycle=0.5") as command:
        assert await command.line() == "motor: sent duty_cycle=0.5; Ctrl-C disables it\n"
        await motor.written(duty_cycle=0.5)
        since = len(motor.messages)
        assert not motor.emulated.disabled
        command.process.send_signal(signum)
        await motor.disabled(since)
        if signum != signal.SIGKILL:
            assert await command.line() == "motor is disabled\n"
            assert await command.process.wait() == 0
    assert motor.emulated.disabled
    assert motor.writes(since) == 0


async def test_seconds_end_the_command(robot: Robot, motor: Device) -> None:
    done = await robot.command(
        "write", "motor", "duty_cycle=-1", "deadband=0.25", "--seconds", "0.2"
    )
    assert done.stdout.splitlines() == [
        "motor: sent duty_cycle=-1, deadband=0.25; it is disabled after 0.2 s",
        "motor is disabled",
    ], done.stderr
    await motor.written(duty_cycle=-1.0, deadband=0.25)
    assert motor.emulated.disabled


async def test_reconnected_motor_is_not_driven_again(robot: Robot) -> None:
    motor = Device("polar-bear")
    await robot.start()
    unplug = await robot.plug_tcp(motor)
    await robot.connected(motor)
    async with writing(robot, "motor", "duty_cycle=0.5") as command:
        await command.line()
        unplug.cancel()
        assert await command.process.wait() == 1
        assert await command.errors() == "rt: device motor was disconnected\n"
    since = len(motor.messages)
    await robot.plug_tcp(motor)
    await robot.connected(motor, since=1)
    assert motor.writes(since) == 0


PROGRAM = """
def autonomous_main():
    Robot.write('motor', 'duty_cycle', 0.75)

teleop_main = autonomous_main

def forward():
    Robot.write('motor', 'duty_cycle', 0.75)
"""
EXECUTED = ("execute", [{"func": "forward", "periodic": True}])


@pytest.mark.parametrize("mode", [("auto",), ("teleop",), EXECUTED], ids=lambda mode: mode[0])
async def test_command_is_refused_at_every_device_during_a_mode(
    robot: Robot, motor: Device, mode: tuple[Any, ...]
) -> None:
    robot.write("studentcode.py", PROGRAM)
    other = Device("polar-bear", 9)
    await robot.plug_tcp(other)
    await robot.connected(other)
    await robot.call(*mode)
    await motor.written(duty_cycle=0.75)
    name, since = await robot.call("mode"), len(motor.messages)
    for uid in ("motor", str(other.uid)):
        done = await robot.command("write", uid, "duty_cycle=-0.5", "--seconds", "1")
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            done.stderr
            == f"rt: the robot is in {name}, and the team's code drives; run `rt call idle` first\n"
        )
    await motor.written(since, duty_cycle=0.75)
    disables = sum(isinstance(message, DevDisable) for message in motor.messages[since:])
    assert disables <= count_cut_offs(robot), robot.log[-20:]
    assert other.writes() == 0
    await robot.call("idle")
    done = await robot.command("write", "motor", "duty_cycle=-0.5", "--seconds", "0.1")
    assert done.stdout.endswith("motor is disabled\n")


async def ended_by(robot: Robot, motor: Device, end: Callable[[], Awaitable[Any]]) -> str:
    """Return the message of a command that something ends; retry on a busy machine."""
    while True:
        async with writing(robot, "motor", "duty_cycle=-0.5") as command:
            await command.line()
            since = len(motor.messages)
            await end()
            assert await command.process.wait() == 1
            await motor.disabled(since)
            errors = await command.errors()
            if "did not run for" not in errors:
                return errors
            await robot.call("idle")


@pytest.mark.parametrize("mode", [("auto",), ("teleop",), EXECUTED], ids=lambda mode: mode[0])
async def test_starting_mode_ends_the_command(
    robot: Robot, motor: Device, mode: tuple[Any, ...]
) -> None:
    robot.write("studentcode.py", PROGRAM)
    errors = await ended_by(robot, motor, lambda: robot.call(*mode))
    assert errors == "rt: motor was disabled: a mode started, and now the team's code drives\n"
    await robot.logged("disabled", reason="a mode has begun")
    await motor.written(len(motor.messages), duty_cycle=0.75)


async def test_command_reports_that_another_disabled_its_device(
    robot: Robot, motor: Device
) -> None:
    errors = await ended_by(robot, motor, lambda: robot.call("disable", "motor"))
    assert errors == "rt: motor was disabled by another command, such as `rt call disable`\n"


async def test_second_command_at_one_device_is_refused(robot: Robot, motor: Device) -> None:
    other = Device("polar-bear", 9)
    await robot.plug_tcp(other)
    await robot.connected(other)
    async with writing(robot, "motor", "duty_cycle=0.5") as command:
        await command.line()
        command.process.send_signal(
            signal.SIGSTOP
        )  # whatever the machine does, it does not end now
        since = len(motor.messages)
        for name in ("motor", str(motor.uid)):
            done = await robot.command("write", name, "duty_cycle=-0.5")
            assert (done.returncode, done.stdout) == (1, "")
            assert "another `rt write` (process " in done.stderr
            assert "drives motor; end it first" in done.stderr
        done = await robot.command("write", str(other.uid), "duty_cycle=0.25", "--seconds", "0.1")
        assert done.stdout.endswith("is disabled\n")
        await other.written(duty_cycle=0.25)
        assert motor.writes(since) == 0
        command.process.kill()
        await command.process.wait()
    done = await robot.command("write", "motor", "duty_cycle=0.5", "--seconds", "0.1")
    assert done.stdout.endswith("motor is disabled\n")


MISTAKES = {
    ("motr", "duty_cycle=1"): "did you mean motor?",
    ("motor", "duty=1"): "rt: polar-bear has no parameter 'duty'; did you mean duty_cycle?",
    ("motor", "duty_cycle"): "use PARAM=VALUE",
    ("motor", "duty_cycle=fast"): "a number, true or false",
    ("motor", "duty_cycle=NaN"): "must be a number",
    ("motor", "duty_cycle=1.5"): "-1 to 1",
    ("motor", "enc_vel=1"): "is read-only; writeable parameters: duty_cycle, ",
    ("switch", "switch0=true"): "is not connected",
}


async def test_mistake_is_one_sentence_and_moves_nothing(robot: Robot, motor: Device) -> None:
    for arguments, sentence in MISTAKES.items():
        done = await robot.command("write", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1
        assert sentence in done.stderr
    assert motor.writes() == 0
