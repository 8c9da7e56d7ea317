"""Budgets of processor time: the share of each second is bounded for any unit of work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.access.time_budget import TimeBudget


class Clocks:
    """A fake clock and a fake timer of processor time."""

    def __init__(self, share: float) -> None:
        self.now = self.used = 0.0
        self.budget = TimeBudget(share, clock=lambda: self.now, timer=lambda: self.used)

    def work(self, seconds: float) -> bool:
        """Do a unit of work if the budget allows it; return whether it did."""
        if self.budget.is_spent:
            return False
        with self.budget.spend():
            self.used += seconds
        return True


@given(st.floats(0.001, 1.0), st.lists(st.tuples(st.floats(0, 5), st.floats(1e-6, 2))))
def test_work_exceeds_its_share_by_at_most_one_unit(
    share: float, units: list[tuple[float, float]]
) -> None:
    clocks = Clocks(share)
    longest = max((seconds for _, seconds in units), default=0.0)
    for pause, seconds in units:
        clocks.now += pause
        clocks.work(seconds)
        assert clocks.used <= share * (clocks.now + 1) + longest + 1e-6


@given(st.floats(0.001, 1.0), st.floats(1e-6, 10))
def test_work_may_begin_after_the_wait(share: float, seconds: float) -> None:
    clocks = Clocks(share)
    assert clocks.work(seconds)
    clocks.now += clocks.budget.wait
    assert clocks.work(seconds)


def test_excess_delays_further_work() -> None:
    clocks = Clocks(0.01)
    assert clocks.work(0.06)
    clocks.now = 4.9
    assert not clocks.work(0.001)
    clocks.now = 5.1
    assert clocks.work(0.001)


def test_failed_work_is_charged() -> None:
    clocks = Clocks(0.01)

    def work() -> None:
        with clocks.budget.spend():
            clocks.used += 1
            raise OSError("x")

    with pytest.raises(OSError, match="x"):
        work()
    assert clocks.budget.is_spent
