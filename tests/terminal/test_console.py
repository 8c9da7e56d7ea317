"""How wide tables are where no terminal says it."""

import io

import pytest

from rt.terminal.console import WIDTH, console


def test_a_pipe_is_wide_and_a_person_may_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == WIDTH
    monkeypatch.setenv("COLUMNS", "60")
    assert console().width == 60
