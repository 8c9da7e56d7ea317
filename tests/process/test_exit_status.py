"""Tests of the log event and the exit code of a failed process."""

import pytest
import structlog

from rt.errors import ConfigError, EmergencyStopException
from rt.process.exit_status import exit_code


@pytest.mark.parametrize(
    ("code", "status"), [(256, 1), (-1, 1), (255, 255), (3, 3), (None, 0), (True, 1), ("words", 1)]
)
def test_exit_code_outside_of_8_bits_becomes_1(
    code: object, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with structlog.testing.capture_logs() as logs:
        assert exit_code(SystemExit(code), "it failed") == status
    assert logs == []
    assert capsys.readouterr().err == ("words\n" if code == "words" else "")


def test_nested_error_of_rt_is_logged_by_its_message() -> None:
    error = ExceptionGroup(
        "outer",
        [ExceptionGroup("inner", [ConfigError("the option is wrong", option="x", event="y")])],
    )
    with structlog.testing.capture_logs() as logs:
        assert exit_code(error, "it failed") == ConfigError.EXIT_CODE
    assert logs == [{"event": "the option is wrong", "option": "x", "log_level": "critical"}]


def test_other_error_is_logged_with_its_traceback() -> None:
    error = ZeroDivisionError("on purpose")
    with structlog.testing.capture_logs() as logs:
        assert exit_code(error, "it failed") == 1
    assert logs == [{"event": "it failed", "exc_info": error, "log_level": "critical"}]


def test_emergency_stop_does_not_hide_other_errors() -> None:
    error = ExceptionGroup("both", [ValueError("first"), EmergencyStopException("enough")])
    with structlog.testing.capture_logs() as logs:
        assert exit_code(error, "it failed") == 255
    assert logs == [{"event": "enough", "exc_info": error, "log_level": "critical"}]


def test_two_errors_are_logged_together() -> None:
    error = BaseExceptionGroup("both", [ConfigError("first"), SystemExit(0)])
    with structlog.testing.capture_logs() as logs:
        assert exit_code(error, "it failed") == 1
    assert logs[0]["exc_info"] is error
