"""The states of the driver: live only after the sticks were at rest, and until silence."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.broker.driver_state import REST, Driver, State, is_at_rest
from rt.protocol.datagrams import NEUTRAL, SILENCE, GamepadState

PUSHED = GamepadState(0.0, 0.5, 0.0, 0.0, 0)
PRESSED = GamepadState(0.0, 0.0, 0.0, 0.0, 1)
WORN = GamepadState(REST / 2, -REST / 2, REST, -REST, 0)


def driven() -> Driver:
    driver = Driver()
    driver.update({0: NEUTRAL}, 0.0)
    assert driver.state is State.LIVE
    return driver


def test_at_rest_means_small_deflections_and_no_button() -> None:
    assert is_at_rest(NEUTRAL)
    assert is_at_rest(WORN)
    for field in ("lx", "ly", "rx", "ry"):
        for value in (1.1 * REST, -1.1 * REST, 1.0):
            assert not is_at_rest(msgspec.structs.replace(NEUTRAL, **{field: value}))
    assert not is_at_rest(PRESSED)


@pytest.mark.parametrize("held", [PUSHED, PRESSED])
def test_driver_with_a_held_control_waits_for_rest(held: GamepadState) -> None:
    driver = Driver()
    assert (driver.state, driver.deadline) == (State.ABSENT, math.inf)
    for number in range(10):
        driver.update({0: held}, number * 0.02)
        assert driver.state is State.WAITING
    driver.update({0: NEUTRAL}, 0.2)
    driver.update({0: held}, 0.22)
    assert driver.state is State.LIVE


def test_silent_driver_is_not_live_until_sticks_were_at_rest() -> None:
    driver = driven()
    driver.update({0: PUSHED}, 0.02)
    assert driver.deadline == 0.02 + SILENCE
    driver.tick(0.01 + SILENCE)
    assert driver.is_live
    driver.tick(0.02 + SILENCE)
    assert (driver.state, driver.deadline) == (State.SILENT, math.inf)
    driver.update({0: PUSHED}, 1.0)
    assert (driver.state, driver.is_present) == (State.WAITING, True)
    driver.update({0: NEUTRAL}, 1.02)
    assert driver.is_live


def test_silence_counts_without_a_tick_before_the_next_update() -> None:
    driver = driven()
    driver.update({0: PUSHED}, SILENCE)
    assert driver.state is State.WAITING


def test_gaps_shorter_than_the_silence_change_nothing() -> None:
    driver = driven()
    for number in range(1, 50):
        driver.tick(number * 0.45 - 0.01)
        driver.update({0: PUSHED}, number * 0.45)
        assert driver.is_live


def test_update_without_gamepads_does_not_end_silence() -> None:
    driver = driven()
    driver.update({}, SILENCE - 0.1)
    driver.tick(SILENCE)
    assert driver.state is State.SILENT
    driver.update({}, SILENCE + 0.1)
    assert driver.state is State.SILENT


def test_one_silent_gamepad_of_several_leaves_the_driver_live() -> None:
    driver = driven()
    driver.update({0: PUSHED, 1: NEUTRAL}, 0.1)
    for number in range(1, 50):
        driver.update({1: PUSHED}, 0.1 + number * 0.02)
        assert driver.is_live
    driver.begin(1.1)
    assert driver.state is State.WAITING
    driver.update({1: NEUTRAL}, 1.12)
    assert driver.is_live, "gamepad 0 reads neutral since it is silent"


def test_gamepad_that_joins_with_a_deflected_stick_stops_motion() -> None:
    driver = driven()
    driver.update({0: PUSHED, 1: PUSHED}, 0.02)
    assert driver.state is State.WAITING
    driver.update({1: NEUTRAL}, 0.04)
    assert driver.state is State.WAITING, "gamepad 0 is still deflected"
    driver.update({0: NEUTRAL}, 0.06)
    assert driver.is_live


def test_gamepad_1_alone_is_a_driver() -> None:
    driver = Driver()
    driver.update({1: PUSHED}, 0.0)
    assert driver.state is State.WAITING
    driver.update({1: WORN}, 0.02)
    assert driver.is_live


def test_mode_that_begins_with_a_deflected_stick_waits_for_rest() -> None:
    driver = driven()
    driver.begin(0.01)
    assert driver.is_live
    driver.update({0: PUSHED}, 0.02)
    driver.begin(0.03)
    assert driver.state is State.WAITING
    driver.update({0: PUSHED}, 0.04)
    assert driver.state is State.WAITING


def test_reset_driver_must_be_at_rest_again() -> None:
    driver = driven()
    driver.reset()
    assert (driver.state, driver.deadline) == (State.ABSENT, math.inf)
    driver.update({0: PUSHED}, 0.04)
    assert not driver.is_live
    driver.update({0: NEUTRAL}, 0.06)
    assert driver.is_live


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("update", "tick", "begin", "reset")),
        st.dictionaries(
            st.integers(0, 3), st.sampled_from((NEUTRAL, PUSHED, PRESSED, WORN)), max_size=3
        ),
        st.floats(0, 0.7),
    )
)


@given(STEPS)
def test_live_driver_sent_recently_and_was_at_rest_before(
    steps: list[tuple[str, dict[int, GamepadState], float]],
) -> None:
    driver, now, last_update = Driver(), 0.0, -math.inf
    values: dict[int, tuple[float, GamepadState]] = {}
    for step, states, pause in steps:
        now += pause
        was_live = driver.is_live and now < last_update + SILENCE
        if step == "update":
            driver.update(states, now)
            if states:
                last_update = now
                values |= {index: (now, state) for index, state in states.items()}
        elif step == "tick":
            driver.tick(now)
        elif step == "begin":
            driver.begin(now)
        else:
            driver.reset()
            values = {}
        held = [
            state
            for when, state in values.values()
            if now < when + SILENCE and not is_at_rest(state)
        ]
        if driver.is_live:
            assert now < last_update + SILENCE
            assert was_live or not held
        assert driver.is_present == (driver.deadline < math.inf)
        if driver.is_present:
            assert now < driver.deadline <= now + SILENCE
