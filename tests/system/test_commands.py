"""The first commands of a newcomer: demo, init, doctor, run."""

import json
import os
import signal
import subprocess

import pytest
import trio
from support.robot import BINARY, PATIENCE, Device, Robot, uid_of

pytestmark = pytest.mark.system

LOOK_INTERVAL = 0.02


async def test_demo_drives_and_ends_by_itself(robot: Robot) -> None:
    done = await robot.command("demo", "--seconds", "2")
    assert done.returncode == 0, done.stderr
    assert "starting an emulated robot ..." in done.stdout
    assert "the robot drove for 2 s: " in done.stdout
    assert "gamepad: forward " in done.stdout
    assert "0 restarts" in done.stdout
    for name in ("left_motor", "right_motor", "bumper", "battery", "arm"):
        assert name in done.stdout


async def test_files_of_init_make_a_robot_that_runs(robot: Robot) -> None:
    done = await robot.command("init", "team")
    assert done.returncode == 0, done.stderr
    team = robot.folder / "empty" / "team"
    robot.write("rt.toml", (team / "rt.toml").read_text() + "\n")
    robot.write("studentcode.py", (team / "studentcode.py").read_text())
    await robot.start("--log-format", "json")
    for mode in ("auto", "teleop"):
        await robot.call(mode)
        assert await robot.call("mode") == mode
    await robot.logged("teleop begins")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dev-baud-rate", "fast"), "--dev-baud-rate"),
        (("--port-base", "80"), "1024"),
        (("--exec-modul", "x"), "--exec-module"),
    ],
)
async def test_invalid_flag_is_one_sentence_and_exit_status_78(
    robot: Robot, flags: tuple[str, str], message: str
) -> None:
    done = await robot.command("run", *flags)
    assert done.returncode == 78
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


async def test_invalid_rt_toml_is_refused_with_file_and_line(robot: Robot) -> None:
    robot.write("rt.toml", 'log_level = "info"\nlog_lvel = "debug"\n')
    done = await robot.command("run")
    assert done.returncode == 78
    assert "rt.toml:2" in done.stderr
    assert "log_level" in done.stderr


async def test_invalid_catalog_is_refused_before_anything_starts(robot: Robot) -> None:
    robot.write("mine.toml", "[thing]\ndevice_id = 1\n")
    done = await robot.command("run", "--dev-catalog", "mine.toml")
    assert done.returncode == 78
    assert "[thing]" in done.stderr
    assert "params" in done.stderr


async def test_call_of_unknown_method_names_the_nearest(robot: Robot) -> None:
    await robot.start()
    done = await robot.command("call", "telop")
    assert done.returncode == 1
    assert "did you mean teleop" in done.stderr
    assert (await robot.command("call", "device.list_uids")).stdout.strip() == "[]"
    assert (await robot.command("call", "list_uids", "7")).returncode == 1


async def test_emulated_devices_join_a_robot(robot: Robot) -> None:
    await robot.start()
    process = await trio.lowlevel.open_process(
        robot.arguments(
            "emulate-dev",
            "--port-base",
            str(robot.port_base),
            'limit-switch@5:{"switch1": true}',
            "servo-motor",
        ),
        env=robot.environment,
        cwd=robot.folder / "empty",
        stdout=subprocess.DEVNULL,
    )
    try:
        await robot.logged("device connected", count=2)
        with trio.fail_after(PATIENCE):
            while True:
                rows = {row["type"]: row for row in robot.devices().values()}
                if rows.get("limit-switch", {}).get("values", {}).get("switch1"):
                    break
                await trio.sleep(LOOK_INTERVAL)
        assert rows["limit-switch"]["uid"] == "5"
        shown = await robot.command("devices")
        assert "limit-switch" in shown.stdout
        assert "servo-motor" in shown.stdout
    finally:
        process.send_signal(signal.SIGINT)
        with trio.fail_after(PATIENCE):
            await process.wait()


async def test_doctor_judges_the_running_robot(robot: Robot) -> None:
    await robot.start("--bind", "0.0.0.0", "--insecure")
    done = await robot.command("doctor", "--json", "--only", "keys")
    (finding,) = json.loads(done.stdout)
    assert finding["status"] == "warn"
    assert "can drive the running robot (insecure)" in finding["fact"]


async def test_doctor_reports_a_stopped_robot(robot: Robot) -> None:
    await robot.start()
    os.kill(robot.root(), signal.SIGSTOP)
    try:
        done = await robot.command("doctor", "--json", "--only", "brake")
    finally:
        os.kill(robot.root(), signal.SIGCONT)
    (finding,) = json.loads(done.stdout)
    assert (finding["status"], done.returncode) == ("fail", 1)
    process = robot.root()
    assert (
        finding["fact"] == f"the robot's process {process} is stopped, and its devices are disabled"
    )
    assert f"kill -CONT {process}" in finding["remedy"]


async def test_doctor_reports_that_this_machine_is_ready(robot: Robot) -> None:
    done = await robot.command("doctor", "--json", "--port-base", str(robot.port_base))
    findings = {entry["id"]: entry for entry in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {"python", "platform", "shm", "mutex", "addresses", "serial", "catalog", "code"} <= set(
        findings
    )
    assert all(entry["status"] != "fail" for entry in findings.values())
    robot.write("studentcode.py", "def teleop_main(:\n")
    done = await robot.command("doctor", "--port-base", str(robot.port_base))
    assert done.returncode == 1
    assert "studentcode.py:1" in done.stdout


async def test_repeated_terminal_signals_stop_the_robot_once(robot: Robot) -> None:
    await robot.start()
    motor = Device("polar-bear")
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    assert robot.process is not None
    for _ in range(3):
        robot.process.send_signal(signal.SIGINT)
    assert await robot.wait() == 0
    assert [
        entry["reason"] for entry in robot.log if entry["event"] == "stopping all children"
    ] == ["received SIGINT"]


@pytest.mark.skipif(BINARY is None, reason="an installed rt has its interpreter's version")
async def test_executable_needs_no_python(robot: Robot) -> None:
    assert "PATH" not in robot.environment
    done = await robot.command("config", "--json")
    assert done.returncode == 0, done.stderr
    assert str(uid_of("polar-bear")) in done.stdout
