"""Shell completions, and nothing else on the output."""

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
    """Return the completions of the last word of a line in bash."""
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
        ("rt lint stu", ["stu"]),  # the shell completes files
        ("rt logs ol", ["ol"]),
        ("rt keys re", ["revoke"]),
        ("rt read motor --ti", ["--timeout"]),
    ],
)
def test_static_names_are_completed_without_robot(
    line: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "rt.toml").write_text('[dev_name]\nmy_arm = "5"\n')
    monkeypatch.chdir(tmp_path)
    assert offered(line, monkeypatch, capfd) == words


def test_running_robots_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rt.instance.running", lambda: ["blue", "black", "red"])
    monkeypatch.chdir(tmp_path)
    assert offered("rt --instance bl", monkeypatch, capfd) == ["blue", "black"]
    assert offered("rt devices --instance r", monkeypatch, capfd) == ["red"]


def test_invalid_rt_toml_completes_nothing_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rt.toml").write_text("port_base = 1\n")
    monkeypatch.chdir(tmp_path)
    assert offered("rt emulate-dev po", monkeypatch, capfd) == []


def test_bash_adds_no_space_after_equals_sign() -> None:
    script = BASH.replace(
        "SCRIPT", completion.script("bash").replace("complete -o", ": complete -o")
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "nospace\nduty_cycle=\n"


@pytest.mark.parametrize(
    "function", [completers.methods, completers.devices, completers.readable, completers.writeable]
)
def test_without_robot_nothing_is_completed_silently(
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
def test_invalid_request_of_shell_prints_nothing(
    instruction: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert completion.complete(main.cli, instruction) == 0
    assert capfd.readouterr() == ("", "")
