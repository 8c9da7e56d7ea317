"""Tests of errors at the entry point of a child."""

import json
import subprocess
import sys

import pytest
import trio
from support.lines import Lines

from rt.process.command import CommandProcess
from rt.process.lifeline import LIFELINE
from rt.root import entry


async def test_settings_of_another_version_are_one_event_with_a_remedy() -> None:
    lines = Lines()
    command = [sys.executable, "-P", "-m", "rt", "_child", "device", LIFELINE]
    process = CommandProcess(command, message=b"\x81\xa4role\xa6device", on_line=lines)
    with trio.fail_after(30):
        await process.start()
        assert await process.wait() == 1
    (event,) = map(json.loads, lines.all)
    assert event["level"] == "critical"
    assert event["app"] == "device"
    assert event["event"].endswith("if rt was updated while the robot ran, restart the robot")


@pytest.mark.parametrize("arguments", [[], ["device"], ["device", "x"], ["device", "1", "2"]])
def test_wrong_arguments_print_what_child_is_for(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(arguments) == 2
    assert "is for rt's own processes" in capsys.readouterr().err


def test_descriptor_that_is_not_a_lifeline_is_one_event() -> None:
    command = [sys.executable, "-P", "-m", "rt", "_child", "device", "0"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["event"].startswith("file descriptor 0 is not a lifeline")
    assert done.stderr == ""
