"""The root's decision whether devices may move."""

from hypothesis import given
from hypothesis import strategies as st

from rt.brake.watch import GRACE, WAITING, BrakeWatch, is_watching, refusal, watching

STEPS = st.lists(
    st.tuples(st.floats(0, 2 * GRACE), st.sampled_from(["ready", "absent", "check"])), max_size=40
)


@given(STEPS)
def test_nothing_moves_when_the_grace_has_passed(steps: list[tuple[float, str]]) -> None:
    watch = BrakeWatch()
    now, was_ready, ready = 100.0, -GRACE, False
    for pause, step in steps:
        if (
            watch.deadline is not None and watch.deadline <= now + pause
        ):  # the root checks at the deadline
            assert watch.check(watch.deadline)
        now += pause
        if ready:
            was_ready = now
        if step == "check":
            watch.check(now)
        else:
            ready = step == "ready"
            was_ready = now if ready else was_ready
            watch.update(now, ready=ready)
        assert not (ready and watch.barred)
        if now - was_ready >= GRACE:
            assert watch.barred
        elif watch.began and now - was_ready < GRACE * 0.999:
            assert not watch.barred


@given(st.floats(0, GRACE * 0.99, exclude_max=True), st.integers(1, 100))
def test_repeated_exits_do_not_extend_the_grace(pause: float, ends: int) -> None:
    watch = BrakeWatch()
    watch.update(0.0, ready=True)
    for number in range(ends):
        watch.update(number * pause / ends, ready=False)
    assert watch.deadline == GRACE


@given(st.lists(st.floats(0, 1000)))
def test_nothing_moves_before_the_first_brake_is_ready(pauses: list[float]) -> None:
    watch = BrakeWatch()
    for pause in pauses:
        assert not watch.update(pause, ready=False)
        assert not watch.check(pause)
        assert watch.barred
        assert watch.deadline is None
    assert watch.update(2000.0, ready=True)
    assert not watch.barred


def test_changes_are_reported_once() -> None:
    watch = BrakeWatch()
    assert watch.update(0.0, ready=True)
    assert not watch.update(0.1, ready=True)
    assert not watch.update(0.2, ready=False)
    assert not watch.check(0.2 + GRACE / 2)
    assert watch.check(0.2 + GRACE)
    assert not watch.check(0.3 + GRACE)
    assert watch.update(1.0 + GRACE, ready=True)


@given(st.integers(0, 1000))
def test_status_says_whether_every_line_is_known(lines: int) -> None:
    assert is_watching(watching(lines))
    assert not is_watching(WAITING)
    assert not is_watching("")


def test_refusal_says_why_the_brake_is_not_ready() -> None:
    assert "(backoff: ended by SIGKILL)" in refusal("backoff", "ended by SIGKILL", "")
    assert "(waiting for the device process)" in refusal("ready", "ready", WAITING)
