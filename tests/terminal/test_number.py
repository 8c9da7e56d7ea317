"""The number type of flags."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.terminal.number import Number


@given(st.floats(), st.floats(-5, 5), st.floats(0, 5))
def test_number_outside_limits_is_refused(value: float, least: float, span: float) -> None:
    number = Number(least, least + span)
    if least <= value <= least + span:
        assert number.convert(repr(value), None, None) == value
    else:
        with pytest.raises(click.BadParameter, match="is not a number from"):
            number.convert(repr(value), None, None)


@pytest.mark.parametrize(
    ("number", "allowed"),
    [
        (Number(), "a number"),
        (Number(above=0), "a number above 0"),
        (Number(above=0, most=10), "a number above 0 and at most 10"),
        (Number(1, whole=True), "a whole number of at least 1"),
        (Number(1, 5, whole=True), "a whole number from 1 to 5"),
    ],
)
def test_error_describes_allowed_numbers(number: Number, allowed: str) -> None:
    assert number.allowed == allowed
    with pytest.raises(click.BadParameter, match=allowed):
        number.convert("nan", None, None)
