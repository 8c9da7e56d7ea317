"""The rate limit for events that remote callers cause."""

import json
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt import log
from rt.log.caller_throttle import BURST, INTERVAL, CallerThrottle


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(log, "_caller_throttle", CallerThrottle(clock))
    return clock


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(level="debug", stream=stream)
        yield lambda: [json.loads(line) for line in path.read_text().splitlines()]


def as_source(source: str, *events: str, level: str = "info", **context: object) -> None:
    def write() -> None:
        log.bind_source(source)
        for event in events:
            getattr(log.get_logger(), level)(event, **context)

    copy_context().run(write)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_flood_of_one_source_is_bounded_and_counted(clock: Clock, lines: Any, level: str) -> None:
    for number in range(1000):
        as_source("station blue", "option set", level=level, number=number)
    assert [each["number"] for each in lines()] == list(range(BURST))
    clock.now += INTERVAL
    log.get_logger().info("the robot itself")
    assert [(each.get("number"), each.get("suppressed")) for each in lines()[BURST:]] == [
        (999, 999 - BURST),
        (None, None),
    ]


def test_other_sources_and_other_events_are_not_suppressed(clock: Clock, lines: Any) -> None:
    as_source("station blue", *["call failed"] * 100)
    as_source("station red", "call failed")
    as_source("station blue", "emergency stop")
    as_source("", *["call failed"] * 3)
    assert [each["event"] for each in lines()[BURST:]] == [
        "call failed",
        "emergency stop",
        *["call failed"] * 3,
    ]


def test_text_from_the_caller_does_not_create_a_class(clock: Clock, lines: Any) -> None:
    as_source(
        "station blue",
        *(f"the function cannot be found or called: {number}" for number in range(500)),
    )
    assert len(lines()) == BURST


def test_suppressed_events_are_logged_with_relayed_events_and_at_the_end(
    clock: Clock, lines: Any
) -> None:
    as_source("station blue", *["option set"] * (BURST + 2))
    clock.now += INTERVAL
    log.relay({"event": "of a child", "level": "info"})
    assert [each["event"] for each in lines()[BURST:]] == ["option set", "of a child"]
    as_source("station blue", "option set")
    assert len(lines()) == BURST + 2
    log.flush()
    assert lines()[-1]["event"] == "option set"


def test_source_ends_with_its_task_and_suppressed_counts_add_up(clock: Clock, lines: Any) -> None:
    as_source("station blue", *["refused"] * (BURST + 3), suppressed=2)
    log.flush()
    assert lines()[-1]["suppressed"] == 4
    for _ in range(2 * BURST):
        log.get_logger().info("refused")
    assert len(lines()) == 3 * BURST + 1


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from(["blue", "red"]), st.sampled_from("ab")),
        max_size=200,
    )
)
def test_source_never_exceeds_its_rate(steps: list[tuple[float, str, str]]) -> None:
    clock = Clock()
    limiter = CallerThrottle(clock)
    written: list[tuple[str, str]] = []
    counts: dict[tuple[str, str], int] = {}
    for wait, source, event in steps:
        clock.now += wait
        limiter.flush()
        fields = {"event": event, "source": source}
        counts[source, event] = counts.get((source, event), 0) + 1
        limiter.log(lambda each: written.append((each["source"], each["event"])), source, fields)
        elapsed = clock.now - 1000.0
        for key in counts:
            assert written.count(key) <= BURST + elapsed / INTERVAL
    limiter.flush(always=True)
    assert {*written} == counts.keys()
    assert not limiter.has_suppressed
