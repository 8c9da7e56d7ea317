"""Stamped gamepad updates: what is late, doubled or overtaken does not count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.broker.replay_filter import MAX_AGE, MAX_STATIONS, RESET_TIME, SequenceTracker
from rt.errors import RemoteProtocolError
from rt.protocol.control import Stamp


def taken(book: SequenceTracker, stamp: Stamp, now: float) -> bool:
    try:
        book.check(stamp, now)
    except RemoteProtocolError:
        return False
    return True


def test_a_number_counts_once_and_only_forward() -> None:
    book = SequenceTracker()
    assert [taken(book, Stamp(seq=number), 0.0) for number in (5, 6, 6, 5, 8, 7, 0, 9)] == [
        *(True, True, False, False, True, False, False, True)
    ]
    assert book.refused == 4


def test_the_refusal_says_what_is_wrong() -> None:
    book = SequenceTracker()
    book.check(Stamp(seq=5, time=1.0), 10.0)
    with pytest.raises(
        RemoteProtocolError, match="number 5 comes after 5: it was sent twice or overtaken"
    ):
        book.check(Stamp(seq=5), 10.0)
    with pytest.raises(RemoteProtocolError, match=r"it was 0\.9 s on its way"):
        book.check(Stamp(seq=6, time=1.1), 11.0)


def test_stations_do_not_disturb_one_another() -> None:
    book = SequenceTracker()
    assert taken(book, Stamp(station="a", seq=100), 0.0)
    assert taken(book, Stamp(station="b", seq=1), 0.0)
    assert taken(book, Stamp(station="a", seq=101), 0.0)
    assert not taken(book, Stamp(station="b", seq=1), 0.0)


def test_a_recorded_update_counts_neither_in_silence_nor_after_other_stations() -> None:
    book = SequenceTracker()
    recorded = Stamp(station="a", seq=3, time=1.0)
    assert taken(book, recorded, 100.0)
    assert not taken(book, recorded, 1000.0)
    for number in range(MAX_STATIONS - 1):
        assert taken(book, Stamp(station=str(number), seq=0), 1000.0)
    assert not taken(book, recorded, 2000.0)


def test_a_station_without_a_name_may_be_started_anew() -> None:
    book = SequenceTracker()
    assert taken(book, Stamp(seq=500), 0.0)
    assert [taken(book, Stamp(seq=number), 0.5 + number / 10) for number in range(10)] == [
        False
    ] * 6 + [True] * 4
    assert not taken(book, Stamp(seq=3), 1.5)
    assert taken(book, Stamp(station="a", seq=500), 0.0)
    assert not taken(book, Stamp(station="a", seq=0), 1000.0)


def test_what_a_network_has_held_up_does_not_count_until_it_has_caught_up() -> None:
    book = SequenceTracker()
    sent = [number * 0.02 for number in range(200)]
    # After 1 s the network stands still for 2 s, and then delivers everything at once.
    arrived = [
        when if when < 1.0 else max(when, 3.0 + number * 1e-4) for number, when in enumerate(sent)
    ]
    counted = [
        when
        for number, (when, now) in enumerate(zip(sent, arrived, strict=True))
        if taken(book, Stamp(seq=number, time=when), now)
    ]
    assert [when for when in counted if 1.0 <= when < 3.0 - MAX_AGE - 0.05] == []
    assert [when for when in counted if when >= 3.0] == [when for when in sent if when >= 3.0]


def test_a_clock_that_was_set_back_is_followed_after_a_moment() -> None:
    book = SequenceTracker()
    assert taken(book, Stamp(time=5000.0), 10.0)
    late = [taken(book, Stamp(time=number * 0.02), 11.0 + number * 0.02) for number in range(100)]
    assert not any(late[: int(RESET_TIME / 0.02) - 1])
    assert all(late[int(RESET_TIME / 0.02) + 1 :])


def test_a_clock_that_is_slow_by_a_little_is_no_delay() -> None:
    book = SequenceTracker()
    assert all(
        taken(book, Stamp(time=number * 0.02 * 0.9999), number * 0.02)
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
def test_of_one_station_the_numbers_that_count_only_rise(
    rows: list[tuple[str, int | None, float | None, float]],
) -> None:
    book = SequenceTracker()
    counted: dict[str, list[int]] = {}
    for station, seq, sent, now in rows:
        if taken(book, Stamp(station=station, seq=seq, time=sent), now) and seq is not None:
            counted.setdefault(station, []).append(seq)
    for numbers in counted.values():
        assert numbers == sorted(set(numbers))
