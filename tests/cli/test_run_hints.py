"""Hints of `rt run` about missing code, and free ports."""

import contextlib
import socket
from pathlib import Path

import pytest

from rt.cli import main
from rt.cli.run import code_problem
from rt.config import Config
from rt.root.lifecycle import PORTS, free_ports


def test_missing_code_suggests_rt_init_only_for_the_default_name(tmp_path: Path) -> None:
    assert "`rt init` writes one" in code_problem(Config(), tmp_path)
    assert "correct exec_module" in code_problem(Config(exec_module="nosuch"), tmp_path)


def test_missing_code_suggests_the_nearest_file(tmp_path: Path) -> None:
    (tmp_path / "studentcode.py").write_text("")
    problem = code_problem(Config(exec_module="studntcode"), tmp_path)
    assert problem.endswith("did you mean studentcode.py?")
    assert "rt init" not in problem


def test_free_ports_skip_taken_ports() -> None:
    base = free_ports(20_000)
    assert base is not None
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", base + PORTS - 1))
        other = free_ports(20_000)
    assert other is not None
    assert other > base


def test_missing_argument_is_named_with_its_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["emulate-dev"]) == 2
    assert "rt: UID[:JSON] is missing" in capsys.readouterr().err
