"""What ends a process is one event of its log, and its exit code."""

import pytest
import structlog

from rt.errors import ConfigError, EmergencyStopException
from rt.process.exit_status import exit_code


@pytest.mark.parametrize(
    ("code", "told"), [(256, 1), (-1, 1), (255, 255), (3, 3), (None, 0), (True, 1), ("words", 1)]
)
def test_an_exit_code_is_never_another_one_that_the_kernel_makes_of_it(
    code: object, told: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with structlog.testing.capture_logs() as logs:
        assert exit_code(SystemExit(code), "it failed") == told
    assert logs == []
    assert capsys.readouterr().err == ("words\n" if code == "words" else "")


def test_an_error_of_our_own_is_its_sentence_however_deep_it_is() -> None:
    error = ExceptionGroup(
        "outer",
        [ExceptionGroup("inner", [ConfigError("the option is wrong", option="x", event="y")])],
    )
    with structlog.testing.capture_logs() as logs:
        assert exit_code(error, "it failed") == ConfigError.EXIT_CODE
    assert logs == [{"event": "the option is wrong", "option": "x", "log_level": "critical"}]


def test_any_other_error_comes_with_its_traceback() -> None:
    error = ZeroDivisionError("on purpose")
    with structlog.testing.capture_logs() as logs:
        assert exit_code(error, "it failed") == 1
    assert logs == [{"event": "it failed", "exc_info": error, "log_level": "critical"}]


def test_an_emergency_stop_among_others_hides_none_of_them() -> None:
    error = ExceptionGroup("both", [ValueError("first"), EmergencyStopException("enough")])
    with structlog.testing.capture_logs() as logs:
        assert exit_code(error, "it failed") == 255
    assert logs == [{"event": "enough", "exc_info": error, "log_level": "critical"}]


def test_of_two_errors_of_our_own_none_is_left_out() -> None:
    error = BaseExceptionGroup("both", [ConfigError("first"), SystemExit(0)])
    with structlog.testing.capture_logs() as logs:
        assert exit_code(error, "it failed") == 1
    assert logs[0]["exc_info"] is error
