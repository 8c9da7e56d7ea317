"""Help, completion and errors of `rt call`."""

import os
import subprocess

import pytest
import trio
from support.robot import BINARY, PATIENCE, Device, Robot, uid_of

pytestmark = pytest.mark.system


async def complete(robot: Robot, *words: str) -> list[str]:
    """Return the completions of the last word; nothing else may be printed."""
    with trio.fail_after(PATIENCE):
        command = robot.arguments("")[:-3]
        done = await trio.run_process(
            command,
            env={
                **robot.environment,
                "_RT_COMPLETE": "bash_complete",
                "COMP_WORDS": " ".join(["rt", *words]),
                "COMP_CWORD": str(len(words)),
            },
            cwd=robot.folder / "empty",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    return [line.partition(",")[2] for line in done.stdout.decode().splitlines()]


async def test_call_help_describes_methods_of_the_running_robot(robot: Robot) -> None:
    await robot.start()
    listed = (await robot.command("call", "--list")).stdout.splitlines()
    assert [line for line in listed if line.endswith("-service")] == [
        "broker-service",
        "device-service",
        "executor-service",
    ]
    assert "  teleop() -> str | None" in listed
    assert "      Begin teleop: call teleop_setup once, then teleop_main at its period." in listed
    assert (await robot.command("call")).stdout.splitlines() == listed
    only = (await robot.command("call", "--list", "--service", "device")).stdout.splitlines()
    assert only[0] == "device-service"
    assert "executor-service" not in only

    told = (await robot.command("call", "subscribe", "--help")).stdout
    assert told.startswith("Usage: rt call subscribe UID [PARAMS] [INTERVAL]")
    assert "of device-service" in told
    assert "\n  uid       str\n" in told
    assert "[default: None]" in told


async def test_impossible_call_names_the_remedy_at_once(robot: Robot) -> None:
    # One refusal each of the command, the router and the service; cli/test_methods.py has the
    # messages.
    done = await robot.command("call", "teleop", "--help")
    assert done.returncode == 1
    assert "no robot runs as" in done.stderr
    await robot.start()

    async def refused(*arguments: str) -> str:
        # The call's time limit is longer than the test's, so the answer must arrive at once.
        done = await robot.command("call", "--timeout", "1000", *arguments)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    assert "there is no service devic-service; did you mean device-service?" in await refused(
        "devic.ping"
    )
    assert "device-service has no method 'pong'; did you mean ping?" in await refused(
        "pong", "--service", "device"
    )
    said = await refused("execute", '[{"func": 5}]')
    assert (
        "argument requests came as [{'func': 5}]: expected text, not a whole number, at [0].func"
        in said
    )
    assert "teleop takes no arguments" in await refused("teleop", "1", "2", "3")


async def test_completion_offers_verbs_flags_methods_devices_and_parameters(robot: Robot) -> None:
    assert await complete(robot, "ca") == ["call"]
    assert "--timeout" in await complete(robot, "call", "--t")
    instance = ("--instance", robot.name)
    assert (
        await complete(robot, *instance, "call", "te") == []
    )  # there is no robot, and nothing is said of it
    assert await complete(robot, *instance, "read", "") == []
    await robot.start()
    motor, other = Device("polar-bear"), Device("servo-motor")
    await robot.plug_tcp(motor)
    await robot.plug_tcp(other)
    await robot.connected(motor, other)
    assert await complete(robot, *instance, "call", "tel") == ["teleop"]
    assert await complete(robot, *instance, "call", "device.pi") == ["device.ping"]
    assert await complete(robot, "call", *instance, "est") == ["estop"]
    assert sorted(await complete(robot, *instance, "read", "")) == sorted(
        ["motor", str(uid_of("servo-motor"))]
    )
    assert await complete(robot, *instance, "read", "motor", "enc_pos", "enc") == ["enc_vel"]
    assert await complete(robot, *instance, "write", "motor", "duty") == ["duty_cycle="]
    assert robot.name in await complete(robot, "--instance", "")


@pytest.mark.skipif(bool(BINARY), reason="the script is the same from source")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_script_is_printed_for_each_shell(robot: Robot, shell: str) -> None:
    done = await robot.command("completion", shell)
    assert done.returncode == 0
    assert "_RT_COMPLETE" in done.stdout
    if shell == "bash":
        assert (
            subprocess.run(  # noqa: ASYNC221
                ["bash", "-n"], input=done.stdout.encode(), env=os.environ, check=False
            ).returncode
            == 0
        )
    assert "eval" in (await robot.command("completion")).stdout
