from hypothesis import given
from hypothesis import strategies as st

from rt.executor.cutoff import WINDOW, CutoffCounter


@given(st.integers(1, 6), st.lists(st.floats(0, 8), max_size=40))
def test_limit_of_cutoffs_in_one_window_ends_the_mode(limit: int, pauses: list[float]) -> None:
    counter = CutoffCounter(limit)
    now = 0.0
    times: list[float] = []
    for pause in pauses:
        now += pause
        times.append(now)
        recent = [time for time in times if time > now - WINDOW]
        assert counter.add(now) == (len(recent) >= limit)


def test_rare_cutoffs_do_not_end_the_mode() -> None:
    counter = CutoffCounter(2)
    assert not any(counter.add(number * (WINDOW + 1)) for number in range(1000))
