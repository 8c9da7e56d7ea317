"""The width of tables without a terminal."""

import io

import pytest

from rt.terminal.console import WIDTH, console


def test_pipe_has_default_width_unless_columns_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == WIDTH
    monkeypatch.setenv("COLUMNS", "60")
    assert console().width == 60
