"""Tests of a team run with `python -m pytest` in its own directory, and leave nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rt

ROOT = Path(rt.__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PATIENCE = 60.0
TEST = """
import pytest

pytest_plugins = ["rt.testing"]
pytestmark = pytest.mark.trio


async def test_motor(start_robot):
    robot = await start_robot({"left_motor": "polar-bear@1"}, code="studentcode.py", timeout=2)
    await robot.call("auto")
    await robot.devices["left_motor"].wait_for("duty_cycle", EXPECTED)
"""
PROGRAM = """
print("the code is loaded")


def autonomous_main():
    Robot.write("left_motor", "duty_cycle", 0.5)
"""


class Project:
    """The directory of a team, and one for temporary files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "my-robot"
        self.temporary = directory / "tmp"
        self.directory.mkdir()
        self.temporary.mkdir()

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, "utf-8")

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"],
            cwd=self.directory,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(self.temporary),
                "RT_INSTANCE": "other",
                "RT_BIND": "0.0.0.0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self) -> tuple[int, str]:
        """Run the tests of the team; return the exit status and the output of pytest."""
        with self.start() as process:
            output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output

    def processes(self) -> list[int]:
        """Return the processes of the robots that were started for the tests."""
        mark = f"XDG_RUNTIME_DIR={self.temporary}/".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes():
                    found.append(int(environ.parent.name))
            except OSError:
                continue
        return found

    def wait_for_processes(self, *, running: bool) -> None:
        deadline = time.monotonic() + PATIENCE
        while bool(self.processes()) != running:
            assert time.monotonic() < deadline, self.processes()
            time.sleep(0.02)


@pytest.fixture
def project() -> Iterator[Project]:
    """A team's project. Its path is short, because those of sockets must be."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as directory:
        yield Project(Path(directory))


def test_wrong_expectation_fails_with_the_value_and_the_log(project: Project) -> None:
    project.write("studentcode.py", PROGRAM)
    project.write("test_motor.py", TEST.replace("EXPECTED", "0.75"))
    status, output = project.run()
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert "AssertionError: left_motor.duty_cycle is 0.5, expected 0.75 within 2 s" in output
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} print \| .*the code is loaded$", output, re.MULTILINE)
    assert project.processes() == []
    assert list(project.temporary.iterdir()) == []


def test_example_of_the_readme_passes(project: Project) -> None:
    section = README.partition("## Test your robot code")[2]
    (test,) = re.findall(r"```py\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    project.write("studentcode.py", "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)))
    project.write("test_studentcode.py", test)
    status, output = project.run()
    assert status == 0, output
    assert "2 passed" in output
    assert list(project.temporary.iterdir()) == []


def test_examples_pass(project: Project) -> None:
    shutil.copytree(ROOT / "examples", project.directory, dirs_exist_ok=True)
    status, output = project.run()
    assert status == 0, output
    assert "3 passed" in output
    assert list(project.temporary.iterdir()) == []


def test_robot_ends_when_pytest_is_killed(project: Project) -> None:
    project.write("studentcode.py", PROGRAM)
    project.write("test_motor.py", TEST.replace("EXPECTED", "lambda value: False"))
    with project.start() as process:
        project.wait_for_processes(running=True)
        process.send_signal(signal.SIGKILL)
    project.wait_for_processes(running=False)
