"""TeamOutput: what team code writes becomes events."""

import builtins
import contextlib
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from rt.executor.api import RunState
from rt.executor.output import LINES, MAX_LINE, MAX_PARTIAL, TeamOutput
from rt.protocol.logevent import CUT_MARKER
from rt.team.api import Mode


@pytest.fixture
def output() -> TeamOutput:
    state = RunState()
    state.begin(Mode.TELEOP, gamepads=True)
    return TeamOutput(state)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def print_(output: TeamOutput, *values: object, **options: Any) -> None:
    """Print as team code does."""
    with contextlib.redirect_stdout(output):
        output.print(*values, **options)


def events(logs: list[Any]) -> list[str]:
    return [entry["event"] for entry in logs]


def test_print_is_an_event_with_mode_and_time(logs: list[Any], output: TeamOutput) -> None:
    print_(output, "speed", 3, sep="=")
    print_(output)
    assert [(entry["event"], entry["mode"], entry["source"]) for entry in logs] == [
        ("speed=3", "teleop", "print"),
        ("", "teleop", "print"),
    ]
    assert all(0 <= entry["clock"] < 60 for entry in logs)


def test_prints_of_imported_modules_are_events(
    logs: list[Any], output: TeamOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", output)
    builtins.print("speed", 3)  # noqa: T201 - as in any module
    sys.stdout.write("a\nb\n")
    builtins.print("c", file=output)
    assert events(logs) == ["speed 3", "a", "b", "c"]
    assert {entry["source"] for entry in logs} == {"print"}


def test_several_prints_make_one_line(logs: list[Any], output: TeamOutput) -> None:
    print_(output, "x =", end=" ")
    print_(output, 5, end=";\n")
    print_(output, "one\ntwo")
    assert events(logs) == ["x = 5;", "one", "two"]


def test_partial_line_is_logged_on_flush_and_mode_end(logs: list[Any], output: TeamOutput) -> None:
    print_(output, "working", end="", flush=True)
    assert events(logs) == ["working"]
    print_(output, "done", end="")
    assert events(logs) == ["working"]
    output.finish()
    output.finish()
    assert events(logs) == ["working", "done"]


def test_endless_line_is_logged_in_parts(logs: list[Any], output: TeamOutput) -> None:
    for _ in range(3 * MAX_PARTIAL):
        print_(output, ".", end="")
    assert len(logs) == 2
    output.finish()
    assert "".join(events(logs)) == "." * 3 * MAX_PARTIAL


def test_lines_of_two_threads_are_not_mixed(logs: list[Any], output: TeamOutput) -> None:
    print_(output, "main", end=" ")

    def print_lines() -> None:
        print_(output, "thread", end=" ")
        print_(output, "over")

    thread = threading.Thread(target=print_lines)
    thread.start()
    thread.join()
    print_(output, "over")
    assert events(logs) == ["thread over", "main over"]


def test_print_to_another_file_is_not_logged(
    logs: list[Any], output: TeamOutput, capsys: pytest.CaptureFixture[str]
) -> None:
    print_(output, "aside", file=sys.stderr)
    assert capsys.readouterr().err == "aside\n"
    with contextlib.redirect_stdout(io.StringIO()) as own:
        output.print("kept")
    assert own.getvalue() == "kept\n"
    assert logs == []


def test_invalid_print_raises_and_logs_nothing(logs: list[Any], output: TeamOutput) -> None:
    with pytest.raises(TypeError, match="end must be None or a string"):
        print_(output, "x", end=5)
    with pytest.raises(TypeError, match="must be str, not bytes"):
        output.write(b"x")  # type: ignore[arg-type]
    assert logs == []


def test_reconfigure_is_accepted(logs: list[Any], output: TeamOutput) -> None:
    output.reconfigure(encoding="utf-8", line_buffering=True)
    print_(output, "ü")
    assert events(logs) == ["ü"]


@pytest.mark.parametrize("unbuffered", [False, True])
def test_programs_and_bytes_use_the_stdout_of_the_process(unbuffered: bool) -> None:
    code = """
import io, subprocess, sys
from rt.executor.api import RunState
from rt.executor.output import TeamOutput
TeamOutput(RunState()).install()
subprocess.run(["echo", "program"], stdout=sys.stdout, check=True)
sys.stdout.buffer.write(b"bytes\\n")
wrapper = io.TextIOWrapper(sys.stdout.buffer)
wrapper.write("wrapped\\n")
del wrapper  # closes what it wraps
sys.stdout.buffer.write(b"more\\n")
print("text", file=sys.__stdout__)
import os; os._exit(0)
"""
    flags = ["-u"] if unbuffered else []
    done = subprocess.run(
        [sys.executable, "-P", *flags, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "program\nbytes\nwrapped\nmore\ntext\n"


def test_flood_of_prints_is_bounded_and_counted(logs: list[Any], output: TeamOutput) -> None:
    for number in range(100_000):
        output.print(number, file=output)
    output.finish()
    prints = [entry for entry in logs if entry.get("source") == "print"]
    assert LINES.burst <= len(prints) < 50_000
    assert len(prints) + sum(entry.get("suppressed", 0) for entry in logs) == 100_000


@pytest.mark.parametrize(
    "text",
    ["x" * 50_000_000, "x\n" * 5_000_000, ("x" * 1_000_000 + "\n") * 20, "\x00\xff\x1b" * 500_000],
)
def test_huge_print_is_cut_and_counted(logs: list[Any], output: TeamOutput, text: str) -> None:
    output.print(text, file=output)
    output.finish()
    lines = text.count("\n") + 1
    prints = [entry for entry in logs if entry.get("source") == "print"]
    assert 1 <= len(prints) <= 2000
    assert len(prints) + sum(entry.get("suppressed", 0) for entry in logs) == lines
    assert all(len(entry["event"]) <= MAX_LINE + len(CUT_MARKER) for entry in logs)
    assert logs[0]["event"].startswith("x") or logs[0]["event"].startswith("\x00")


def test_prints_are_logged_again_after_a_flood(logs: list[Any]) -> None:
    now = 0.0
    output = TeamOutput(RunState(), lambda: now)
    for number in range(20_000):
        output.print(number, file=output)
    now = 10.0
    output.print("after", file=output)
    assert [entry["event"] for entry in logs][-2:] == [
        "prints suppressed: team code prints too much",
        "after",
    ]
