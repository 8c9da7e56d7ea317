"""Selection and rendering of events as in `rt logs`."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt.logs.view import LogView, clock_moved, event_of, parse_since

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def event(**fields: Any) -> dict[str, Any]:
    stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {"event": "hello", "level": "info", "timestamp": stamp, "app": "device", **fields}


def test_level_includes_higher_levels() -> None:
    view = LogView(level="warning")
    assert [
        level for level in ("debug", "info", "warning", "error") if view.wants(event(level=level))
    ] == ["warning", "error"]
    assert view.levels == ["warning", "error", "critical"]


def test_app_includes_its_events_and_those_about_it() -> None:
    view = LogView(apps=["executor"])
    assert view.wants(event(app="executor"))
    assert view.wants(event(app="root", child="executor"))
    assert not view.wants(event())
    assert not view.wants(event(app=["executor"], child={"executor": 1}))


def test_since_includes_newer_events_and_those_without_a_time() -> None:
    view = LogView(since=datetime.now(UTC) - timedelta(minutes=1))
    assert view.wants(event())
    assert not view.wants(event(timestamp="2020-01-01T00:00:00Z"))
    assert view.wants(event(timestamp="whenever"))
    assert view.wants(event(timestamp="9999-12-31T23:59:59-01:00"))


def test_since_corrects_times_before_the_clock_was_set() -> None:
    now = datetime.now(UTC)
    year = timedelta(days=365)
    log = [
        ("last year", now - timedelta(hours=2) - year, 0.0),
        ("a minute ago", now - timedelta(minutes=1) - year, 0.0),
        ("set too far", now + year, (2 * year).total_seconds()),
        ("a moment ago", now - timedelta(seconds=5) + year, 0.0),
        ("set right", now, -year.total_seconds()),
        ("now", now, 0.0),
    ]
    events = [
        event(event=name, timestamp=moment.isoformat(), clock_moved=moved)
        for name, moment, moved in log
    ]
    view = LogView(since=now - timedelta(minutes=10))
    with view.clock_offset(sum(map(clock_moved, events))):
        assert [each["event"] for each in events if view.wants(each)] == [
            name for name, *_ in log[1:]
        ]
    assert not view.wants(events[1])


@pytest.mark.parametrize("moved", ["soon", None, [1], 1e300, float("nan")])
def test_invalid_clock_movement_counts_as_zero(moved: object) -> None:
    assert clock_moved(event(clock_moved=moved)) == 0.0


def test_print_shows_its_mode_and_the_time_since_its_start() -> None:
    text = LogView().show(
        event(event="fast", source="print", mode="teleop", clock=3.256, app="executor")
    )
    assert text.endswith(" print | teleop 3.26 s | fast")


def test_json_is_the_event_itself() -> None:
    shown = event(uid="5")
    assert json.loads(LogView(as_json=True).show(dict(shown))) == shown


def test_new_day_is_shown_once() -> None:
    view = LogView()
    old = {"timestamp": "2020-01-01T12:00:00Z"}
    assert "\n" not in view.show(event())
    assert view.show(event(**old)).startswith("--- 2020-01-0")
    assert "\n" not in view.show(event(**old))


@pytest.mark.parametrize(
    "stamp", ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "0001-01-01", "2026"]
)
def test_any_time_can_be_shown(stamp: str) -> None:
    assert "hello" in LogView().show(event(timestamp=stamp))


def test_exception_is_shown_as_lines() -> None:
    raised = {
        "type": "ValueError",
        "message": "no",
        "frames": [{"file": "a.py", "line": 3, "func": "f", "code": "g()"}],
    }
    text = LogView().show(event(level="error", exception=raised))
    assert "a.py:3 in f" in text
    assert text.rstrip().endswith("ValueError: no")


@settings(deadline=None)
@given(st.binary())
def test_any_line_can_be_shown(line: bytes) -> None:
    LogView().show(event_of(line))


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["timestamp", "app", "exception", "clock", "mode", "source"]),
        st.text() | st.floats(),
    )
)
def test_any_event_can_be_shown(fields: dict[str, Any]) -> None:
    shown = {**event(), **fields}
    LogView().wants(shown)
    LogView().show(shown)


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("30s", 30),
        ("10m", 600),
        ("2h", 7200),
        ("1.5 d", 129600),
        ("2026-01-31T11:00:00Z", 3600),
        ("999999999d", None),
    ],
)
def test_age_and_date_are_parsed(text: str, ago: float | None) -> None:
    moment = parse_since(text, NOW)
    assert moment.year == 1 if ago is None else moment == NOW - timedelta(seconds=ago)


def test_time_of_day_means_the_most_recent_one() -> None:
    for hour in range(24):
        assert timedelta(0) <= NOW - parse_since(f"{hour}:30", NOW) < timedelta(days=1)


@pytest.mark.parametrize("text", ["", "soon", "10", "25:00", "10x", "-5m", "2026-13-01"])
def test_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time; write 30s"):
        parse_since(text, NOW)
