"""The linter and remote changes of options."""

import contextlib
import json
import os
import signal
import stat
from pathlib import Path

import pytest
import trio
from support.robot import Device, Robot, uid_of

from rt.config import overrides
from rt.protocol import datagrams
from rt.protocol.datagrams import GamepadState, Stamp
from rt.protocol.message import DevWrite
from rt.remote import DatagramNode

pytestmark = pytest.mark.system

BAD = """\
import os

MOTOR = "mtor"


async def wave():
    Robot.write("motor", "duty_cycle", 2.0)


def teleop_main():
    Robot.write(MOTOR, "duty_cycle", 0.5)
    wave()
"""
HOSTILE = "x = [" + "[[0] * 9, {}, lambda: (yield)]," * 15_000 + "]\n"


class TestCommand:
    async def test_good_program_has_no_problems(self, robot: Robot) -> None:
        done = await robot.command("lint")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    async def test_problems_are_printed_in_the_format_of_editors(self, robot: Robot) -> None:
        robot.write("studentcode.py", BAD)
        done = await robot.command("lint")
        assert done.returncode == 1
        assert done.stdout.splitlines() == [
            "studentcode.py:1:1: warning: 'os' imported but unused: remove the import [UnusedImport]",
            "studentcode.py:7:40: warning: duty_cycle ranges from -1 to 1: 2 is written as 1 [value-out-of-range]",
            "studentcode.py:11:17: error: there is no device 'mtor'; did you mean motor? [unknown-device]",
            "studentcode.py:12:5: error: wave() does not run the action: write Actions.run(wave) [action-not-run]",
        ]
        records = json.loads((await robot.command("lint", "--json", "studentcode.py")).stdout)
        assert [
            (each["message-id"], each["line"], each["column"], each["obj"]) for each in records
        ] == [
            ("F401", 1, 0, ""),
            ("RT206", 7, 39, "wave"),
            ("RT201", 11, 16, "teleop_main"),
            ("RT301", 12, 4, "teleop_main"),
        ]

    async def test_warnings_alone_are_exit_status_0(self, robot: Robot) -> None:
        robot.write("studentcode.py", "import os\n\n\ndef teleop_main():\n    pass\n")
        done = await robot.command("lint")
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)

    async def test_files_of_init_have_no_problems(self, robot: Robot) -> None:
        assert (await robot.command("init", "--force")).returncode == 0
        done = await robot.command("lint")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    async def test_missing_file_is_one_sentence(self, robot: Robot) -> None:
        done = await robot.command("lint", "absent.py")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("rt: no such file: absent.py")
        assert len(done.stderr.splitlines()) == 1

    async def test_list_prints_all_checks(self, robot: Robot) -> None:
        done = await robot.command("lint", "--list")
        assert "RT201  error    unknown-device" in done.stdout


class TestCall:
    async def test_running_robot_lints_its_code(self, robot: Robot) -> None:
        await robot.start()
        assert await robot.call("lint") == []
        robot.write("studentcode.py", BAD)
        assert [each["message-id"] for each in await robot.call("lint")] == [
            "F401",
            "RT206",
            "RT201",
            "RT301",
        ]
        robot.write("studentcode.py", "def teleop_main(:\n")
        assert [(each["symbol"], each["line"]) for each in await robot.call("lint")] == [
            ("syntax-error", 1)
        ]

    async def test_lint_of_hostile_program_ends_while_the_robot_drives(self, robot: Robot) -> None:
        await robot.start()
        device = Device("polar-bear")
        await robot.plug_tcp(device)
        await robot.connected(device)
        robot.write(
            "studentcode.py",
            'def teleop_main():\n    Robot.write("motor", "duty_cycle", Field.clock() % 1)\n',
        )
        await robot.call("teleop")
        before = await device.until(lambda message: "Write" in type(message).__name__)
        robot.write("studentcode.py", HOSTILE)
        with trio.fail_after(40):
            records = await robot.call("lint")
        assert records
        assert not {each["symbol"] for each in records} & {"lint-crashed", "check-failed"}
        assert device.writes(before) > 5, "the robot stood still meanwhile"
        assert await robot.call("mode") == "teleop"
        await robot.call("idle")

    async def test_killed_robot_leaves_no_linter_behind(self, robot: Robot) -> None:
        await robot.start()
        robot.write("studentcode.py", HOSTILE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(robot.command, "call", "lint")
            with trio.fail_after(40):
                while not any(map(is_linter, robot.processes())):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            os.kill(robot.root(), signal.SIGKILL)
            await robot.wait_all_exited()
        await robot.wait()
        await robot.start()


def is_linter(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"\0_child\0lint\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class TestOptions:
    async def test_set_option_takes_effect_at_the_next_start(self, robot: Robot) -> None:
        await robot.start()
        uid = str(uid_of("servo-motor"))
        options = {"dev_poll_interval": 0.05, "dev_name": {"arm": uid}}
        assert await robot.call("set_option", options) == options
        assert await robot.call("get_option", "dev_poll_interval") == 0.04
        await robot.stop()

        path = robot.folder / "state/rt" / robot.name / overrides.FILE_NAME
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        shown = json.loads(
            (await robot.command("config", "--json", "dev_poll_interval", "dev_name")).stdout
        )
        assert shown["dev_poll_interval"] == {"value": 0.05, "origin": "set_option"}
        assert shown["dev_name"]["value"]["arm"] == uid
        assert shown["dev_name"]["origin"].endswith(", set_option")
        assert "set_option" in (await robot.command("config", "dev_poll_interval")).stdout

        await robot.start()
        assert b"overrides of rt.toml: dev_name, dev_poll_interval" in robot.errors
        assert await robot.call("get_option", "dev_poll_interval") == 0.05
        assert await robot.call("get_option", "dev_name.arm") == uid
        assert (
            await robot.call("set_option", {"dev_poll_interval": None, "dev_name": {"arm": None}})
            == {}
        )
        await robot.stop()
        assert not path.exists()

    async def test_flag_overrides_a_set_option(self, robot: Robot) -> None:
        await robot.start()
        await robot.call("set_option", {"log_level": "debug"})
        await robot.stop()
        await robot.start("--log-level", "info")
        assert await robot.call("get_option", "log_level") == "info"

    async def test_option_that_cannot_be_set_is_one_sentence(self, robot: Robot) -> None:
        await robot.start()
        for options, said in {
            '{"bind": "0.0.0.0"}': "bind cannot be set remotely, because it decides who reaches the",
            '{"dev_poll_interval": 9}': "dev_poll_interval = 9 is not a number from 0.001 to 1 (s)",
            '{"dev_pol_interval": 1}': "did you mean dev_poll_interval?",
            '{"exec_module": "/etc/passwd"}': "because it is outside of",
        }.items():
            done = await robot.command("call", "set_option", options)
            assert (done.returncode, done.stdout) == (1, "")
            assert said in done.stderr
            assert len(done.stderr.splitlines()) == 1
        assert await robot.call("set_option", {}) == {}

    async def test_invalid_overrides_are_one_sentence_with_the_remedy(self, robot: Robot) -> None:
        path = robot.folder / "state/rt" / robot.name / overrides.FILE_NAME
        path.parent.mkdir(parents=True)
        path.write_text("{")
        done = await robot.command("run")
        assert done.returncode == 78
        assert "remove it to start without the options set" in done.stderr


class TestStamps:
    async def test_recorded_datagram_does_not_move_a_robot(self, robot: Robot) -> None:
        await robot.start()
        device = Device("polar-bear")
        await robot.plug_tcp(device)
        await robot.connected(device)
        await robot.call("teleop")
        pushed, released = (
            GamepadState(0.0, 0.75, 0.0, 0.0, 0),
            GamepadState(0.0, 0.25, 0.0, 0.0, 0),
        )
        recorded: list[bytes] = []

        async with DatagramNode.from_address(
            f"udp://127.0.0.1:{robot.port_base + 2}", bind=False
        ) as node:

            async def drive() -> None:
                while True:
                    stamp = Stamp(station="driver", seq=len(recorded), time=trio.current_time())
                    recorded.append(datagrams.encode_gamepads({0: pushed}, stamp))
                    await node.send(b"", recorded[-1])
                    await trio.sleep(0.02)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(drive)
                await device.written(duty_cycle=0.75)
                nursery.cancel_scope.cancel()
            await robot.logged("gamepad reads neutral")
            neutral = await device.written(len(device.messages) - 1, duty_cycle=0.0)
            for datagram in recorded:
                await node.send(b"", datagram)
            await robot.logged("call failed", method="update_gamepads")
            fresh = Stamp(station="driver", seq=len(recorded), time=trio.current_time())
            await node.send(b"", datagrams.encode_gamepads({0: released}, fresh))
            end = await device.written(neutral, duty_cycle=0.25)
        moved = [
            message for message in device.messages[neutral:end] if isinstance(message, DevWrite)
        ]
        carried = [
            device.emulated.peripheral.unpack(each.params, each.data)["duty_cycle"]
            for each in moved
        ]
        assert 0.75 not in carried
