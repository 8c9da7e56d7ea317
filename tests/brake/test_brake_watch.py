"""When the root lets devices move: only while a brake is ready, or has been a short time ago."""

from hypothesis import given
from hypothesis import strategies as st

from rt.brake.watch import GRACE, WAITING, BrakeWatch, is_watching, refusal, watching

STEPS = st.lists(
    st.tuples(st.floats(0, 2 * GRACE), st.sampled_from(["ready", "absent", "look"])), max_size=40
)


@given(STEPS)
def test_nothing_moves_longer_than_the_grace_after_the_last_ready_brake(
    steps: list[tuple[float, str]],
) -> None:
    watch = BrakeWatch()
    now, was_ready, ready = 100.0, -GRACE, False
    for pause, step in steps:
        if watch.due is not None and watch.due <= now + pause:  # the root looks when it is due
            assert watch.look(watch.due)
        now += pause
        if ready:
            was_ready = now
        if step == "look":
            watch.look(now)
        else:
            ready = step == "ready"
            was_ready = now if ready else was_ready
            watch.note(now, ready=ready)
        assert not (ready and watch.barred)
        if now - was_ready >= GRACE:
            assert watch.barred
        elif watch.began and now - was_ready < GRACE * 0.999:
            assert not watch.barred


@given(st.floats(0, GRACE * 0.99, exclude_max=True), st.integers(1, 100))
def test_ends_in_a_row_do_not_lengthen_the_time(pause: float, ends: int) -> None:
    watch = BrakeWatch()
    watch.note(0.0, ready=True)
    for number in range(ends):
        watch.note(number * pause / ends, ready=False)
    assert watch.due == GRACE


@given(st.lists(st.floats(0, 1000)))
def test_nothing_moves_before_the_first_brake_is_ready(pauses: list[float]) -> None:
    watch = BrakeWatch()
    for pause in pauses:
        assert not watch.note(pause, ready=False)
        assert not watch.look(pause)
        assert watch.barred
        assert watch.due is None
    assert watch.note(2000.0, ready=True)
    assert not watch.barred


def test_changes_are_told_once() -> None:
    watch = BrakeWatch()
    assert watch.note(0.0, ready=True)
    assert not watch.note(0.1, ready=True)
    assert not watch.note(0.2, ready=False)
    assert not watch.look(0.2 + GRACE / 2)
    assert watch.look(0.2 + GRACE)
    assert not watch.look(0.3 + GRACE)
    assert watch.note(1.0 + GRACE, ready=True)


@given(st.integers(0, 1000))
def test_only_a_brake_that_knows_every_line_watches(lines: int) -> None:
    assert is_watching(watching(lines))
    assert not is_watching(WAITING)
    assert not is_watching("")


def test_refusal_says_what_the_brake_lacks() -> None:
    assert "it is backoff: ended by SIGKILL" in refusal("backoff", "ended by SIGKILL", "")
    assert "it waits for the device process" in refusal("ready", "ready", WAITING)
