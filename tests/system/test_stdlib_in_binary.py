"""The executable contains the whole standard library and needs no Python."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import rt

pytestmark = [
    pytest.mark.every_case,
    pytest.mark.system,
    pytest.mark.skipif("RT_BINARY" not in os.environ, reason="RT_BINARY names no executable"),
]


def execute(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the executable in an empty environment."""
    binary = Path(os.environ["RT_BINARY"]).absolute()
    return subprocess.run(
        [binary, *arguments],
        cwd=directory,
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_whole_standard_library_can_be_imported(tmp_path: Path) -> None:
    result = execute(tmp_path, "doctor", "--json", "--only", "stdlib")
    (finding,) = json.loads(result.stdout)
    assert finding["status"] == "ok", finding["fact"]
    assert int(finding["fact"].split()[1]) > 500
    assert result.returncode == 0


def test_doctor_passes_in_the_executable(tmp_path: Path) -> None:
    result = execute(
        tmp_path,
        "doctor",
        "--json",
        "--only",
        "python",
        "--only",
        "shm",
        "--only",
        "mutex",
        "--only",
        "catalog",
    )
    assert [finding["status"] for finding in json.loads(result.stdout)] == ["ok"] * 4, result.stdout


def test_multiprocessing_helpers_run_in_the_executable(tmp_path: Path) -> None:
    flags = [
        "-B",
        "-S",
        "-I",
    ]  # those that the executable's interpreter runs with and multiprocessing hands on
    result = execute(
        tmp_path, *flags, "-c", "from multiprocessing.resource_tracker import main; main(0)"
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_executable_is_small_and_starts_quickly(tmp_path: Path) -> None:
    assert Path(os.environ["RT_BINARY"]).stat().st_size <= 30_000_000
    seconds = []
    for _ in range(5):
        before = os.times()
        result = execute(tmp_path, "--version")
        after = os.times()
        # Processor time, which depends little on the load of the machine.
        seconds.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
        assert result.stdout == f"rt {rt.__version__}\n"
    assert min(seconds) <= 0.4, seconds
