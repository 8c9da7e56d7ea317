"""What the team's code says becomes events, whichever way it says it."""

import builtins
import contextlib
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from rt.executor.api import RunState
from rt.executor.output import LINES, MAX_LINE, MAX_PARTIAL, TeamOutput
from rt.protocol.logevent import CUT
from rt.team.api import Mode


@pytest.fixture
def output() -> TeamOutput:
    state = RunState()
    state.begin(Mode.TELEOP, gamepads=True)
    return TeamOutput(state)


@pytest.fixture
def said() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as logs:
        yield logs


def say(output: TeamOutput, *values: object, **options: Any) -> None:
    """What the team's print does in the process that runs its code."""
    with contextlib.redirect_stdout(output):
        output.print(*values, **options)


def sentences(said: list[Any]) -> list[str]:
    return [entry["event"] for entry in said]


def test_print_is_an_event_with_mode_and_time(said: list[Any], output: TeamOutput) -> None:
    say(output, "speed", 3, sep="=")
    say(output)
    assert [(entry["event"], entry["mode"], entry["source"]) for entry in said] == [
        ("speed=3", "teleop", "print"),
        ("", "teleop", "print"),
    ]
    assert all(0 <= entry["clock"] < 60 for entry in said)


def test_a_module_that_the_teams_code_imports_is_heard_too(
    said: list[Any], output: TeamOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", output)
    builtins.print("speed", 3)  # noqa: T201 - as in any module
    sys.stdout.write("a\nb\n")
    builtins.print("c", file=output)
    assert sentences(said) == ["speed 3", "a", "b", "c"]
    assert {entry["source"] for entry in said} == {"print"}


def test_several_prints_make_one_line(said: list[Any], output: TeamOutput) -> None:
    say(output, "x =", end=" ")
    say(output, 5, end=";\n")
    say(output, "one\ntwo")
    assert sentences(said) == ["x = 5;", "one", "two"]


def test_a_line_without_an_end_is_told_when_it_is_flushed_and_when_the_mode_ends(
    said: list[Any], output: TeamOutput
) -> None:
    say(output, "working", end="", flush=True)
    assert sentences(said) == ["working"]
    say(output, "done", end="")
    assert sentences(said) == ["working"]
    output.finish()
    output.finish()
    assert sentences(said) == ["working", "done"]


def test_a_line_that_never_ends_is_told_in_parts(said: list[Any], output: TeamOutput) -> None:
    for _ in range(3 * MAX_PARTIAL):
        say(output, ".", end="")
    assert len(said) == 2
    output.finish()
    assert "".join(sentences(said)) == "." * 3 * MAX_PARTIAL


def test_lines_of_two_threads_are_not_mixed(said: list[Any], output: TeamOutput) -> None:
    say(output, "main", end=" ")

    def talk() -> None:
        say(output, "thread", end=" ")
        say(output, "over")

    thread = threading.Thread(target=talk)
    thread.start()
    thread.join()
    say(output, "over")
    assert sentences(said) == ["thread over", "main over"]


def test_what_is_for_another_file_goes_there(
    said: list[Any], output: TeamOutput, capsys: pytest.CaptureFixture[str]
) -> None:
    say(output, "aside", file=sys.stderr)
    assert capsys.readouterr().err == "aside\n"
    with contextlib.redirect_stdout(io.StringIO()) as own:
        output.print("kept")
    assert own.getvalue() == "kept\n"
    assert said == []


def test_what_pythons_print_refuses_is_refused_and_nothing_is_said(
    said: list[Any], output: TeamOutput
) -> None:
    with pytest.raises(TypeError, match="end must be None or a string"):
        say(output, "x", end=5)
    with pytest.raises(TypeError, match="must be str, not bytes"):
        output.write(b"x")  # type: ignore[arg-type]
    assert said == []


def test_what_programs_ask_of_a_real_stdout_is_no_error(
    said: list[Any], output: TeamOutput
) -> None:
    output.reconfigure(encoding="utf-8", line_buffering=True)
    say(output, "ü")
    assert sentences(said) == ["ü"]


@pytest.mark.parametrize("unbuffered", [False, True])
def test_programs_and_bytes_go_to_the_process_s_own_output(unbuffered: bool) -> None:
    code = """
import io, subprocess, sys
from rt.executor.api import RunState
from rt.executor.output import TeamOutput
TeamOutput(RunState()).install()
subprocess.run(["echo", "said"], stdout=sys.stdout, check=True)
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
    assert done.stdout == "said\nbytes\nwrapped\nmore\ntext\n"


def test_flood_of_prints_is_bounded_and_counted(said: list[Any], output: TeamOutput) -> None:
    for number in range(100_000):
        output.print(number, file=output)
    output.finish()
    prints = [entry for entry in said if entry.get("source") == "print"]
    assert LINES.burst <= len(prints) < 50_000
    assert len(prints) + sum(entry.get("suppressed", 0) for entry in said) == 100_000


@pytest.mark.parametrize(
    "text",
    ["x" * 50_000_000, "x\n" * 5_000_000, ("x" * 1_000_000 + "\n") * 20, "\x00\xff\x1b" * 500_000],
)
def test_huge_print_is_cut_and_counted(said: list[Any], output: TeamOutput, text: str) -> None:
    output.print(text, file=output)
    output.finish()
    lines = text.count("\n") + 1
    prints = [entry for entry in said if entry.get("source") == "print"]
    assert 1 <= len(prints) <= 2000
    assert len(prints) + sum(entry.get("suppressed", 0) for entry in said) == lines
    assert all(len(entry["event"]) <= MAX_LINE + len(CUT) for entry in said)
    assert said[0]["event"].startswith("x") or said[0]["event"].startswith("\x00")


def test_prints_are_told_again_after_a_flood(
    said: list[Any], output: TeamOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20_000):
        output.print(number, file=output)
    start = time.monotonic()
    monkeypatch.setattr("rt.executor.output.monotonic", lambda: start + 10)
    output.print("after", file=output)
    assert [entry["event"] for entry in said][-2:] == [
        "prints were suppressed: the team code prints too much",
        "after",
    ]
