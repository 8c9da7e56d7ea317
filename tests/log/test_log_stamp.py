"""Time stamps of events."""

import time
from datetime import UTC, datetime

import pytest

from rt.log import stamp
from rt.protocol.logevent import is_timestamp


@pytest.mark.parametrize("seconds", [0, 1_700_000_000, 1_699_999_999, 4_102_444_800])
def test_stamp_follows_the_clock_when_it_jumps(
    seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([seconds * 10**9, seconds * 10**9 + 999_999_999, (seconds + 1) * 10**9 + 5_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    made = [stamp.now() for _ in range(3)]
    assert [datetime.fromisoformat(each).timestamp() for each in made] == [
        seconds,
        seconds + 0.999999,
        seconds + 1.000005,
    ]
    assert all(map(is_timestamp, made))
    assert all(datetime.fromisoformat(each).tzinfo is UTC for each in made)
