"""Tests of the run delay of a thread."""

import os

import pytest

from rt.diagnostics import run_delay
from rt.diagnostics.run_delay import RunDelay


def test_run_delay_grows_and_is_0_if_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    delay = RunDelay()
    assert 0.0 <= delay.read() <= delay.read()
    for content in (b"", b"1", b"1 x 3"):
        monkeypatch.setattr(run_delay, "pread", lambda *_, content=content: content)
        assert delay.read() == 0.0
    monkeypatch.setattr(run_delay, "pread", os.pread)
    delay.close()
    assert delay.read() == 0.0


@pytest.mark.parametrize("error", [ValueError, OSError, IndexError])
def test_error_of_a_signal_handler_is_raised(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler() -> None:
        raise error("drive")

    def interrupted(fd: int, count: int, offset: int) -> bytes:
        handler()
        return os.pread(fd, count, offset)

    monkeypatch.setattr(run_delay, "pread", interrupted)
    with pytest.raises(error, match="drive"):
        RunDelay().read()
