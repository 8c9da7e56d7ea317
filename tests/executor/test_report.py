import structlog

from rt.errors import DeviceError
from rt.executor.report import BURST, Reporter
from rt.executor.time_limit import TimeLimitError


def test_error_is_logged_once_and_then_counted() -> None:
    reporter = Reporter()
    with structlog.testing.capture_logs() as logs:
        for _ in range(10):
            reporter.report(ValueError("no"), "teleop_main")
        reporter.report(ValueError("another"), "teleop_main")
        reporter.flush()
        reporter.report(ValueError("no"), "teleop_main")
    assert [(entry["event"], entry.get("count")) for entry in logs] == [
        ("ValueError: no", None),
        ("ValueError: another", None),
        ("error repeated", 9),
        ("ValueError: no", None),
    ]


def test_timeout_is_logged_with_its_limit() -> None:
    with structlog.testing.capture_logs() as logs:
        Reporter().report(TimeLimitError(0.25), "teleop_main")
    assert [(entry["log_level"], entry["limit"]) for entry in logs] == [("warning", 0.25)]
    assert logs[0]["event"].startswith(
        "teleop_main took too long and was interrupted: it must return within 0.25 s"
    )


def test_busy_computer_is_not_blamed_on_the_code() -> None:
    reporter, busy = Reporter(), TimeLimitError(0.25)
    busy.waited = 0.2
    with structlog.testing.capture_logs() as logs:
        for error in (busy, TimeLimitError(0.25), busy):
            reporter.report(error, "teleop_main")
        reporter.flush()
    first, second, again = logs
    assert first["event"].startswith("the computer is busy: teleop_main waited for a processor")
    assert first["waited"] == 0.2
    assert second["event"].startswith("teleop_main took too long")
    assert again["error"] == first["event"]


def test_error_of_rt_is_logged_by_its_message() -> None:
    with structlog.testing.capture_logs() as logs:
        Reporter().report(DeviceError("no device is named 'x'"), "teleop_main")
    assert logs[0]["event"] == "no device is named 'x'"


def test_errors_with_varying_texts_are_bounded() -> None:
    reporter = Reporter()
    with structlog.testing.capture_logs() as logs:
        for number in range(1000):
            reporter.report(ValueError(f"no {number}"), "teleop_main")
    found = [entry for entry in logs if entry["event"].startswith("ValueError")]
    assert BURST <= len(found) <= BURST + 10


def test_each_error_of_a_group_is_logged() -> None:
    group = ExceptionGroup(
        "all",
        [ValueError("one"), ExceptionGroup("inner", [DeviceError("two"), ValueError("three")])],
    )
    with structlog.testing.capture_logs() as logs:
        Reporter().report(group, "act")
    assert [entry["event"] for entry in logs] == ["ValueError: one", "two", "ValueError: three"]


def test_group_of_many_errors_is_bounded() -> None:
    group = ExceptionGroup("all", [ValueError(str(number)) for number in range(1000)])
    with structlog.testing.capture_logs() as logs:
        Reporter().report(group, "act")
    assert 1 < len(logs) <= BURST
