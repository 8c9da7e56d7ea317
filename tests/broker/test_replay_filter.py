"""The filter for late, duplicated and replayed gamepad updates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.broker.replay_filter import MAX_STATIONS, RESET_TIME, SequenceTracker
from rt.errors import RemoteProtocolError
from rt.protocol.datagrams import SILENCE, Stamp


def accepted(tracker: SequenceTracker, stamp: Stamp, now: float) -> bool:
    try:
        tracker.check(stamp, now)
    except RemoteProtocolError:
        return False
    return True


def test_numbers_are_accepted_once_and_in_ascending_order() -> None:
    tracker = SequenceTracker()
    assert [accepted(tracker, Stamp(seq=number), 0.0) for number in (5, 6, 6, 5, 8, 7, 0, 9)] == [
        *(True, True, False, False, True, False, False, True)
    ]
    assert tracker.refused == 4


def test_refusal_has_a_reason() -> None:
    tracker = SequenceTracker()
    tracker.check(Stamp(seq=5, time=1.0), 10.0)
    with pytest.raises(
        RemoteProtocolError, match="number 5 follows 5; it was sent twice or overtaken"
    ):
        tracker.check(Stamp(seq=5), 10.0)
    with pytest.raises(RemoteProtocolError, match=r"it is 0\.9 s old"):
        tracker.check(Stamp(seq=6, time=1.1), 11.0)


def test_stations_are_independent() -> None:
    tracker = SequenceTracker()
    assert accepted(tracker, Stamp(station="a", seq=100), 0.0)
    assert accepted(tracker, Stamp(station="b", seq=1), 0.0)
    assert accepted(tracker, Stamp(station="a", seq=101), 0.0)
    assert not accepted(tracker, Stamp(station="b", seq=1), 0.0)


def test_replayed_update_is_refused_after_silence_and_other_stations() -> None:
    tracker = SequenceTracker()
    recorded = Stamp(station="a", seq=3, time=1.0)
    assert accepted(tracker, recorded, 100.0)
    assert not accepted(tracker, recorded, 1000.0)
    for number in range(MAX_STATIONS - 1):
        assert accepted(tracker, Stamp(station=str(number), seq=0), 1000.0)
    assert not accepted(tracker, recorded, 2000.0)


def test_station_without_a_name_may_be_restarted() -> None:
    tracker = SequenceTracker()
    assert accepted(tracker, Stamp(seq=500), 0.0)
    assert [accepted(tracker, Stamp(seq=number), 0.5 + number / 10) for number in range(10)] == [
        False
    ] * 6 + [True] * 4
    assert not accepted(tracker, Stamp(seq=3), 1.5)
    assert accepted(tracker, Stamp(station="a", seq=500), 0.0)
    assert not accepted(tracker, Stamp(station="a", seq=0), 1000.0)


def test_delayed_updates_are_refused_until_the_network_catches_up() -> None:
    tracker = SequenceTracker()
    sent = [number * 0.02 for number in range(200)]
    # After 1 s the network stalls for 2 s, then delivers everything at once.
    arrived = [
        when if when < 1.0 else max(when, 3.0 + number * 1e-4) for number, when in enumerate(sent)
    ]
    counted = [
        when
        for number, (when, now) in enumerate(zip(sent, arrived, strict=True))
        if accepted(tracker, Stamp(seq=number, time=when), now)
    ]
    assert [when for when in counted if 1.0 <= when < 3.0 - SILENCE - 0.05] == []
    assert [when for when in counted if when >= 3.0] == [when for when in sent if when >= 3.0]


def test_clock_that_was_set_back_is_accepted_after_the_reset_time() -> None:
    tracker = SequenceTracker()
    assert accepted(tracker, Stamp(time=5000.0), 10.0)
    late = [
        accepted(tracker, Stamp(time=number * 0.02), 11.0 + number * 0.02) for number in range(100)
    ]
    assert not any(late[: int(RESET_TIME / 0.02) - 1])
    assert all(late[int(RESET_TIME / 0.02) + 1 :])


def test_slightly_slow_clock_does_not_look_like_a_delay() -> None:
    tracker = SequenceTracker()
    assert all(
        accepted(tracker, Stamp(time=number * 0.02 * 0.9999), number * 0.02)
        for number in range(0, 1_000_000, 50)
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.none() | st.integers(0, 30),
            st.none() | st.floats(0, 1e9),
            st.floats(0, 1e9),
        )
    )
)
def test_accepted_numbers_of_a_station_only_rise(
    rows: list[tuple[str, int | None, float | None, float]],
) -> None:
    tracker = SequenceTracker()
    counted: dict[str, list[int]] = {}
    for station, seq, sent, now in rows:
        if accepted(tracker, Stamp(station=station, seq=seq, time=sent), now) and seq is not None:
            counted.setdefault(station, []).append(seq)
    for numbers in counted.values():
        assert numbers == sorted(set(numbers))
