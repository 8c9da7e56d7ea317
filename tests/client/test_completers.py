"""What the Tab key offers, and that it never says anything else."""

import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from rt.cli import completion, main
from rt.client import completers

BASH = """
compopt() { echo "$2"; }
env() { echo "plain,duty_cycle="; }
SCRIPT
_rt_completion rt
echo "${COMPREPLY[@]}"
"""


def offered(
    line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> list[str]:
    """What bash is offered for the last word of a line."""
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    assert completion.complete(main.cli, "bash_complete") == 0
    out, err = capfd.readouterr()
    assert not err
    return [item.partition(",")[2] or item for item in out.splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rt run --log-level wa", ["warning"]),
        ("rt config port_", ["port_base"]),
        ("rt doctor --only mut", ["mutex"]),
        ("rt emulate-dev po", ["potentiometer", "polar-bear"]),
        ("rt parse-msg --device my", ["my_arm"]),
        ("rt lint stu", ["stu"]),  # the shell knows its files itself
        ("rt logs ol", ["ol"]),
        ("rt keys re", ["revoke"]),
        ("rt read motor --ti", ["--timeout"]),
    ],
)
def test_what_needs_no_robot_is_always_offered(
    line: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "rt.toml").write_text('[dev_name]\nmy_arm = "5"\n')
    monkeypatch.chdir(tmp_path)
    assert offered(line, monkeypatch, capfd) == words


def test_robots_that_run_are_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rt.instance.running", lambda: ["blue", "black", "red"])
    monkeypatch.chdir(tmp_path)
    assert offered("rt --instance bl", monkeypatch, capfd) == ["blue", "black"]
    assert offered("rt devices --instance r", monkeypatch, capfd) == ["red"]


def test_a_wrong_file_of_options_offers_nothing_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rt.toml").write_text("port_base = 1\n")
    monkeypatch.chdir(tmp_path)
    assert offered("rt emulate-dev po", monkeypatch, capfd) == []


def test_bash_puts_no_space_between_a_parameter_and_its_value() -> None:
    script = BASH.replace(
        "SCRIPT", completion.script("bash").replace("complete -o", ": complete -o")
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "nospace\nduty_cycle=\n"


@pytest.mark.parametrize(
    "function", [completers.methods, completers.devices, completers.readable, completers.writeable]
)
def test_without_a_robot_nothing_is_completed_and_nothing_is_said(
    function: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = main.cli.commands.get("call", click.Command("call", params=[click.Argument(["uid"])]))
    context = click.Context(command)
    for name in ("nobody-is-here", "../not/allowed", "x" * 500):
        monkeypatch.setenv("RT_INSTANCE", name)
        assert function(context, command.params[0], "") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "instruction", ["bash_complete", "cmd_complete", "zsh_source", "", "_", "bash"]
)
def test_a_shell_that_asks_in_vain_is_told_nothing(
    instruction: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert completion.complete(main.cli, instruction) == 0
    assert capfd.readouterr() == ("", "")
