"""The rate limit for log events: bursts, floods, counts of suppressed events, the newest event."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rt.log import throttle
from rt.log.throttle import Throttle


class Log:
    """Records events with the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[tuple[float, dict[str, Any]]] = []

    def write(self, event: str, **context: Any) -> None:
        self.events.append((self.now, {"event": event, **context}))

    def throttle(self, *per: str, **limits: Any) -> Throttle:
        return Throttle(*per, clock=lambda: self.now, **limits)


def test_first_events_are_logged_at_once() -> None:
    log = Log()
    limited = log.throttle(burst=2, interval=5)
    assert limited.log(log.write, "gone", port="a")
    assert limited.log(log.write, "gone", port="a")
    assert not limited.log(log.write, "gone", port="a")
    assert [event for _, event in log.events] == [{"event": "gone", "port": "a"}] * 2


def test_next_event_carries_the_count_of_suppressed_ones() -> None:
    log = Log()
    limited = log.throttle(burst=1, interval=5)
    for number in range(4):
        limited.log(log.write, "gone", number=number)
    log.now = 5
    limited.log(log.write, "gone", number=9)
    assert log.events[1:] == [(5, {"event": "gone", "number": 9, "suppressed": 3})]


def test_newest_suppressed_event_is_logged_in_the_end() -> None:
    log = Log()
    limited = log.throttle(burst=1, interval=5)
    for number in range(4):
        limited.log(log.write, "gone", number=number)
    limited.flush()
    assert len(log.events) == 1
    log.now = 5
    limited.flush()
    limited.flush()
    assert log.events[1:] == [(5, {"event": "gone", "number": 3, "suppressed": 2})]


def test_flood_of_one_device_suppresses_no_other() -> None:
    log = Log()
    limited = log.throttle("port", burst=1, interval=5)
    for _ in range(100):
        limited.log(log.write, "gone", port="a")
    assert limited.log(log.write, "gone", port="b")
    assert limited.log(log.write, "connected", port="a")


def test_device_that_changes_its_names_is_bounded() -> None:
    log = Log()
    limited = log.throttle("port", "uid", burst=2, interval=5, total_burst=10, total_interval=1)
    for number in range(1000):
        limited.log(log.write, "gone", port=f"tcp://127.0.0.1:{number}", uid=str(number))
    assert len(log.events) == 10
    for number in range(1000):
        limited.log(log.write, "connected", port="one", uid=str(number))
    assert len(log.events) == 12


def test_events_of_one_kind_share_a_limit() -> None:
    log = Log()
    limited = log.throttle(burst=3, interval=5)
    for number in range(100):
        limited.log(log.write, f"the port {number} is refused", "refused")
    assert len(log.events) == 3


def test_memory_is_bounded() -> None:
    log = Log()
    limited = log.throttle("uid")
    for number in range(3 * throttle.MAX_KEYS):
        limited.log(log.write, "gone", uid=str(number))
    assert len(limited._buckets) <= throttle.MAX_KEYS
    assert len(limited._suppressed) <= throttle.MAX_KEYS


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("ab")), max_size=60), st.integers(1, 4))
def test_every_event_is_logged_or_counted_within_the_rate(
    steps: list[tuple[float, str]], burst: int
) -> None:
    log = Log()
    limited = log.throttle("port", burst=burst, interval=5)
    for pause, port in steps:
        log.now += pause
        limited.flush()
        limited.log(log.write, "gone", port=port)
    end = log.now
    for _ in range(2 * len(steps) + 2):
        log.now += 5
        limited.flush()
    assert sum(1 + event.get("suppressed", 0) for _, event in log.events) == len(steps)
    for port in "ab":
        times = [time for time, event in log.events if event["port"] == port and time <= end]
        assert len(times) <= burst + end / 5


def test_due_is_the_time_at_which_flush_logs() -> None:
    log = Log()
    limited = log.throttle("port", burst=1, interval=5, total_burst=2, total_interval=8)
    assert limited.due == math.inf
    for port in "aab":
        limited.log(log.write, "gone", port=port)
    assert limited.due == 8  # all ports share one more limit
    limited.log(log.write, "gone", port="c")
    log.now = 5
    limited.flush()
    assert len(log.events) == 2
    assert limited.due == 8
    log.now = 8
    limited.flush()
    assert log.events[-1] == (8, {"event": "gone", "port": "a"})
    log.now = limited.due
    limited.flush()
    assert log.events[-1] == (16, {"event": "gone", "port": "c"})
    assert limited.due == math.inf


def test_flush_at_the_end_logs_what_is_not_due() -> None:
    log = Log()
    limited = log.throttle(burst=1, interval=5)
    for number in range(3):
        limited.log(log.write, "gone", number=number)
    limited.flush(always=True)
    assert log.events[1:] == [(0, {"event": "gone", "number": 2, "suppressed": 1})]
