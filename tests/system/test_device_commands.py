"""Commands about devices: read, subscribe, ping, devices, format-msg and parse-msg."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from support.robot import PATIENCE, Device, Robot

from rt.errors import RemoteCallError
from rt.protocol import frames
from rt.protocol.message import DevRead, HbReq, Message, SubReq

pytestmark = pytest.mark.system


@pytest.fixture
async def switch(robot: Robot) -> Device:
    """A limit switch named ``switch`` of a running robot."""
    device = Device("limit-switch")
    await robot.start()
    await robot.plug_tcp(device)
    await robot.connected(device)
    await device.until(lambda message: isinstance(message, SubReq))
    with trio.fail_after(PATIENCE):
        while not subscription(robot, device)[0]:  # noqa: ASYNC110
            await trio.sleep(0.01)
    return device


def subscription(robot: Robot, device: Device) -> tuple[list[str], float]:
    row = robot.devices()[device.uid]
    return row["subscription"], row["interval"]


def sentence(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """Return the only line of output of a command that failed."""
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("rt: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


class TestRead:
    async def test_read_prints_requested_values(self, robot: Robot, switch: Device) -> None:
        await robot.call("unsubscribe", "switch")
        before = len(switch.messages)
        switch.emulated.values["switch2"] = True
        for name in ("switch", str(switch.uid)):
            done = await robot.command("read", name)
            assert done.stdout.split() == [
                "switch0",
                "false",
                "switch1",
                "false",
                "switch2",
                "true",
            ], done.stderr
        assert DevRead(0b111) in switch.messages[before:]
        done = await robot.command("read", "switch", "switch2", "--json")
        row = json.loads(done.stdout)
        assert row["values"] == {"switch2": True}
        assert (row["uid"], row["name"], row["type"]) == (str(switch.uid), "switch", "limit-switch")
        assert DevRead(0b100) in switch.messages[before:]

    async def test_mistake_is_reported_before_anything_is_sent(
        self, robot: Robot, switch: Device
    ) -> None:
        before = len(switch.messages)
        for verb in ("read", "subscribe"):
            assert "did you mean switch?" in sentence(await robot.command(verb, "swich"))
            assert "did you mean switch0?" in sentence(
                await robot.command(verb, "switch", "swich0")
            )
            assert "motor is not connected; connected: switch" in sentence(
                await robot.command(verb, "motor")
            )
        asked = [
            message for message in switch.messages[before:] if isinstance(message, DevRead | SubReq)
        ]
        assert asked == []

    async def test_silent_device_is_reported(self, robot: Robot, switch: Device) -> None:
        await robot.call("unsubscribe", "switch")
        ignore(switch, DevRead)
        done = await robot.command("read", "switch", "switch0", "--timeout", "0.3")
        assert "switch did not send its values within 0.3 s" in sentence(done)

    async def test_missing_robot_is_reported(self, robot: Robot) -> None:
        for verb in ("read", "subscribe", "ping"):
            sentence(await robot.command(verb, "switch"))


class TestSubscribe:
    async def test_count_ends_subscribe_and_restores_the_subscription(
        self, robot: Robot, switch: Device
    ) -> None:
        former = subscription(robot, switch)
        done = await robot.command(
            "subscribe", "switch", "switch1", "--interval", "0.06", "--count", "3", "--json"
        )
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["values"] for row in rows][1:] == [{"switch1": False}] * 2
        assert SubReq(0b010, 60) in switch.messages
        assert subscription(robot, switch) == former == (["switch0", "switch1", "switch2"], 0.04)

    async def test_device_without_subscription_has_none_afterwards(
        self, robot: Robot, switch: Device
    ) -> None:
        await robot.call("unsubscribe", "switch")
        done = await robot.command("subscribe", "switch", "--interval", "5", "--count", "1")
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d\.\d{3}  switch0 off  switch1 off  switch2 off?\n", done.stdout
        ), done.stdout
        assert done.stderr == "rt: switch reports every 0.25 s instead of 5 s\n"
        assert subscription(robot, switch) == ([], 0.0)

    @pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "closed", "SIGKILL"])
    async def test_former_subscription_is_restored_after_any_end(
        self, robot: Robot, switch: Device, end: str
    ) -> None:
        await robot.call("subscribe", "switch", ["switch0", "switch2"], 0.1)
        async with running(robot, "subscribe", "switch", "--interval", "0.2") as process:
            assert b"switch0" in await process.stdout.receive_some()
            if end == "closed":
                await process.stdout.aclose()
            else:
                process.send_signal(signal.Signals[end])
            assert await process.wait() == (-signal.SIGKILL if end == "SIGKILL" else 0)
        with trio.fail_after(PATIENCE):  # one that is killed cannot wait for the device's answer
            while (present := subscription(robot, switch)) != (["switch0", "switch2"], 0.1):
                assert end == "SIGKILL", present
                await trio.sleep(0.01)

    async def test_newer_subscription_of_another_caller_is_kept(
        self, robot: Robot, switch: Device
    ) -> None:
        async with running(robot, "subscribe", "switch", "switch0", "--interval", "0.2") as process:
            await process.stdout.receive_some()
            await robot.call("subscribe", str(switch.uid), ["switch1"], 0.1)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        assert subscription(robot, switch) == (["switch1"], 0.1)

    async def test_disconnected_device_ends_the_command(self, robot: Robot) -> None:
        device = Device("limit-switch")
        await robot.start()
        plug = await robot.plug_tcp(device)
        await robot.connected(device)
        async with running(robot, "subscribe", "switch") as process:
            await process.stdout.receive_some()
            plug.cancel()
            assert await process.wait() == 1
            assert await process.stderr.receive_some() == b"rt: device switch was disconnected\n"


class TestPing:
    async def test_ping_prints_each_answer_and_the_statistics(
        self, robot: Robot, switch: Device
    ) -> None:
        motor = Device("polar-bear")
        await robot.plug_tcp(motor)
        await robot.connected(motor)
        done = await robot.command("ping", "--count", "3", "--interval", "0.05", "--timeout", "5")
        assert done.returncode == 0, done.stderr
        for name, device in (("switch", switch), ("motor", motor)):
            kind = device.emulated.peripheral.name
            for number in (1, 2, 3):
                assert re.search(
                    rf"^{name}: seq={number} time=[0-9.]+ ms$", done.stdout, re.MULTILINE
                )
            assert (
                f"--- {name} ({kind} {device.uid}) ---\n3 requests, 3 answers, 0% loss\nmin/avg/max/mdev = "
                in done.stdout
            )
            assert sum(isinstance(message, HbReq) for message in device.messages) >= 3

    async def test_device_that_never_answers_is_exit_status_1(
        self, robot: Robot, switch: Device
    ) -> None:
        ignore(switch, HbReq)
        done = await robot.command(
            "ping", "switch", "--count", "2", "--interval", "0.01", "--timeout", "0.1"
        )
        assert done.returncode == 1
        assert "switch: seq=2 no answer: " in done.stdout
        assert "2 requests, 0 answers, 100% loss" in done.stdout
        assert "min/avg" not in done.stdout
        assert "swtch" in sentence(await robot.command("ping", "switch", "swtch"))

    async def test_ctrl_c_prints_the_statistics(self, robot: Robot, switch: Device) -> None:
        printed = b""
        async with running(robot, "ping", str(switch.uid)) as process:
            async for chunk in process.stdout:
                if not printed:
                    process.send_signal(signal.SIGINT)
                printed += chunk
            assert await process.wait() == 0
        assert b"switch: seq=1 time=" in printed
        assert b" answers, 0% loss\nmin/avg/max/mdev = " in printed


class TestDevices:
    async def test_selected_devices_are_shown_with_counts_of_parameters(
        self, robot: Robot, switch: Device
    ) -> None:
        motor = Device("polar-bear")
        await robot.plug_tcp(motor)
        await robot.connected(motor)
        await switch.until(lambda message: isinstance(message, SubReq))
        (row,) = json.loads((await robot.command("devices", "switch", "--json")).stdout)
        assert row["port"].startswith("tcp://127.0.0.1:")
        assert row["uid"] == str(switch.uid)
        assert set(row["received"]) == set(row["sent"]) == {"switch0", "switch1", "switch2"}
        assert row["received"]["switch0"] > 0
        assert 0 <= row["age"] < PATIENCE
        shown = (await robot.command("devices", "motor")).stdout
        assert "polar-bear" in shown
        assert "limit-switch" not in shown
        assert "did you mean motor?" in sentence(await robot.command("devices", "moter"))
        shown = (await robot.command("devices", "limit-switch")).stdout
        assert "switch0" in shown
        assert "polar-bear" not in shown
        async with running(robot, "devices", "--watch") as process:
            await process.stdout.receive_some()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0  # as every verb that goes on until Ctrl-C


class TestNames:
    async def test_every_verb_accepts_names_and_reports_mistakes_alike(
        self, robot: Robot, switch: Device
    ) -> None:
        methods = ("ping", "read", "subscribe", "heartbeat", "unsubscribe", "disable")
        for name in ("switch", str(switch.uid)):
            for method in methods:
                await robot.call(method, name)
            assert (await robot.command("call", "ping", f'["{name}"]')).returncode == 0
        said = set()
        for method in methods:
            with pytest.raises(RemoteCallError) as caught:
                await robot.call(method, "swich")
            said.add(f"rt: {caught.value}\n")
        said.add(sentence(await robot.command("call", "read", "swich")))
        for verb in ("read", "subscribe", "ping", "devices"):
            said.add(sentence(await robot.command(verb, "swich")))
        assert said == {"rt: there is no device 'swich'; did you mean switch?\n"}

    async def test_absent_device_is_an_error_of_every_verb(
        self, robot: Robot, switch: Device
    ) -> None:
        await robot.connected(switch)
        done = [await robot.command(verb, "motor") for verb in ("read", "ping", "devices")]
        assert {each.returncode for each in done} == {1}
        assert {each.stderr for each in done} == {
            "rt: the device motor is not connected; connected: switch\n"
        }

    async def test_options_newer_than_the_robot_are_named_as_the_cause(
        self, robot: Robot, switch: Device
    ) -> None:
        await robot.connected(switch)
        path = robot.folder / "empty" / "rt.toml"
        remedy = "rt.toml is newer than the robot; restart `rt run`"
        arguments = [("read", "claw"), ("write", "claw", "x=1"), ("devices", "claw")]
        for each in arguments:
            assert remedy not in sentence(await robot.command(*each))
        os.utime(path, (path.stat().st_atime, time.time() + 60))
        for each in arguments:
            assert remedy in sentence(await robot.command(*each))
        assert remedy in (await robot.command("devices")).stdout
        robot.write("studentcode.py", 'def autonomous_main():\n    Robot.get("claw", "x")\n')
        await robot.call("auto")
        await robot.logged(remedy)

    async def test_misspelt_type_is_answered_with_a_suggestion(
        self, robot: Robot, switch: Device
    ) -> None:
        await robot.connected(switch)
        assert "did you mean limit-switch?" in sentence(await robot.command("read", "limitswitch"))


class TestMessages:
    GOLDEN = "02100210 00 0414060101010103bfac 00 04ff01fe01"

    async def test_message_survives_formatting_and_parsing(self, robot: Robot) -> None:
        parse = shlex.join(robot.arguments("parse-msg", "--device", "motor", self.GOLDEN))
        done = await shell(
            robot, f"{parse} | {shlex.join(robot.arguments('format-msg', '--delimiter'))}"
        )
        assert done.stdout.split() == ["0210021000", "0414060101010103bfac00", "04ff01fe0100"], (
            done.stderr
        )
        shown = [json.loads(line) for line in (await shell(robot, parse)).stdout.splitlines()]
        assert shown[1] == {
            "type": "DEV_WRITE",
            "device": "polar-bear",
            "params": {"duty_cycle": -0.5},
        }

    async def test_invalid_frames_are_exit_status_1_and_others_are_printed(
        self, robot: Robot
    ) -> None:
        wrong = '{"type": "DEV_WRITE", "device": "motor", "params": {"duty_cycle": 2}}'
        done = await robot.command(
            "format-msg", '{"type": "PING"}', wrong, '{"type": "DEV_DISABLE"}'
        )
        assert (done.returncode, done.stdout.split()) == (1, ["02100210", "02160216"])
        assert (
            done.stderr
            == "rt: argument 2, character 53: duty_cycle must be a number, -1 to 1, not 2\n"
        )
        done = await shell(
            robot,
            f"printf '02100210\\n\\n0x02 16\\n' | {shlex.join(robot.arguments('parse-msg', '-'))}",
        )
        assert (done.returncode, done.stdout) == (1, '{"type": "PING"}\n')
        assert done.stderr.startswith("rt: line 3, byte 0: ")


@contextlib.asynccontextmanager
async def running(robot: Robot, *arguments: str) -> AsyncIterator[Any]:
    """Run a command until the end of the block."""
    process = await trio.lowlevel.open_process(
        robot.arguments(*arguments),
        cwd=robot.folder / "empty",
        env=robot.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr:
        try:
            with trio.fail_after(PATIENCE):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def shell(robot: Robot, line: str) -> subprocess.CompletedProcess[str]:
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            ["/bin/sh", "-c", line],
            cwd=robot.folder / "empty",
            env=robot.environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return subprocess.CompletedProcess(
        line, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def ignore(device: Device, kind: type[Message]) -> None:
    """Make a device ignore messages of a type."""
    handle: Any = device.emulated.handle
    device.emulated.handle = lambda item, now: [] if isinstance(item, kind) else handle(item, now)  # type: ignore[method-assign]


def test_known_frames_match_the_protocol() -> None:
    for text in TestMessages.GOLDEN.split(" 00 "):
        frames.decode(bytes.fromhex(text))
