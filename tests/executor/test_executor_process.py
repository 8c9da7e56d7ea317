"""ExecutorProcess: errors of the event loop and the exit code."""

import contextlib
import socket
from pathlib import Path

import pytest
import structlog
import trio

from rt import config
from rt.app import ChildSettings
from rt.errors import ConfigError, EmergencyStopException
from rt.executor.process import ExecutorProcess
from rt.process.lifeline import Lifeline


@pytest.mark.parametrize(
    ("error", "code"),
    [(EmergencyStopException(), 255), (ConfigError("wrong"), 78), (ZeroDivisionError(), 1)],
)
def test_error_of_the_event_loop_sets_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    async def fail() -> None:
        async with trio.open_nursery():
            raise error

    options = config.load(env={}, cwd=tmp_path).config
    settings = ChildSettings(
        role="executor", config=options, directory=str(tmp_path), shm_prefix="", write_event=-1
    )
    ours, theirs = socket.socketpair()
    lifeline = Lifeline(theirs.detach())
    with ours, contextlib.closing(lifeline), structlog.testing.capture_logs() as logs:
        process = ExecutorProcess(settings, lifeline, -1)
        monkeypatch.setattr(process, "_serve", fail)
        process._ended.set()  # the main thread has nothing to do
        process._run_loop()
    assert process._exit_code == code
    assert [entry["log_level"] for entry in logs] == ["critical"]
