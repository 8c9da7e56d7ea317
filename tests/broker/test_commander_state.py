"""One station in control at a time: accepted and refused senders, and changes of control."""

from hypothesis import given
from hypothesis import strategies as st

from rt.broker.commander import HANDOVER, MAX_CONTENDERS, Arbiter, Sender
from rt.protocol.datagrams import SILENCE

BLUE = Sender(key="blue", host="10.0.0.1", line="10.0.0.1:5000", run="b1")
RED = Sender(key="red", host="10.0.0.2", line="10.0.0.2:5000", run="r1")
PLAIN = Sender(host="10.0.0.3", line="10.0.0.3:5000")
OTHER = Sender(host="10.0.0.4", line="10.0.0.4:5000")


def sends(arbiter: Arbiter, sender: Sender, now: float) -> bool:
    """Return whether an update is accepted."""
    if arbiter.check(sender, now) is not None:
        return False
    arbiter.accept(sender, now)
    return True


def test_first_sender_has_control_and_others_are_refused() -> None:
    arbiter = Arbiter()
    assert sends(arbiter, PLAIN, 0.0)
    for number in range(100):
        assert sends(arbiter, PLAIN, number * 0.02)
        assert not sends(arbiter, OTHER, number * 0.02 + 0.01)
    assert arbiter.commander(2.0) == PLAIN
    (contender,) = arbiter.waiting(2.0)
    assert (contender.sender, contender.refused, arbiter.refused) == (OTHER, 100, 100)


def test_refusal_names_both_stations_and_the_remedy() -> None:
    arbiter = Arbiter()
    sends(arbiter, BLUE, 0.0)
    refusal = arbiter.check(RED, 0.1)
    assert refusal is not None
    assert refusal.sentence == (
        "blue has control of the robot, not red; `rt call take_control` at that station, or"
        " `rt call take_control red` at the robot, takes it over"
    )


def test_another_sender_takes_control_after_silence() -> None:
    arbiter = Arbiter()
    sends(arbiter, BLUE, 0.0)
    assert not sends(arbiter, RED, HANDOVER - 0.01)
    assert sends(arbiter, RED, HANDOVER)
    assert not sends(arbiter, BLUE, HANDOVER + 0.1)


def test_refused_updates_neither_keep_nor_give_control() -> None:
    arbiter = Arbiter()
    sends(arbiter, BLUE, 0.0)
    for number in range(1, 50):
        assert not sends(arbiter, RED, number * 0.1)
    assert arbiter.commander(HANDOVER - 0.01) == BLUE
    assert arbiter.commander(HANDOVER) is None


def test_restarted_station_is_the_same_driver() -> None:
    for before, after in (
        (BLUE, Sender(key="blue", host="10.0.0.9", line="10.0.0.9:1", run="b2")),
        (PLAIN, Sender(host="10.0.0.3", line="10.0.0.3:6000")),
        (Sender(host="1", line="1:1", run="x"), Sender(host="1", line="1:2", run="y")),
    ):
        arbiter = Arbiter()
        sends(arbiter, before, 0.0)
        assert not sends(arbiter, after, SILENCE / 2), "both may be alive"
        assert sends(arbiter, after, SILENCE)


def test_two_programs_with_one_key_are_not_a_restart() -> None:
    arbiter = Arbiter()
    copy = Sender(key="blue", host="10.0.0.9", line="10.0.0.9:1", run="b2")
    for number in range(10):
        assert sends(arbiter, BLUE, number * 0.1)
        assert not sends(arbiter, copy, number * 0.1 + 0.05)
    assert not sends(arbiter, copy, 0.9 + SILENCE + 0.1)
    assert sends(arbiter, copy, 0.9 + HANDOVER)


def test_two_stations_at_one_address_are_distinguished() -> None:
    arbiter = Arbiter()
    first = Sender(host="127.0.0.1", line="127.0.0.1:1")
    second = Sender(host="127.0.0.1", line="127.0.0.1:2")
    assert sends(arbiter, first, 0.0)
    assert not sends(arbiter, second, 0.01)
    assert sends(arbiter, first, 0.02)
    assert not sends(arbiter, second, 0.02 + SILENCE)


def test_calls_and_datagrams_of_one_run_are_one_sender() -> None:
    for key in ("", "blue"):
        call = Sender(key=key, line="station-client", run="abc")
        datagram = Sender(key=key, host="10.0.0.1", line="10.0.0.1:5", run="abc")
        moved = Sender(key=key, host="10.0.0.1", line="10.0.0.1:6", run="abc")
        arbiter = Arbiter()
        assert [sends(arbiter, each, 0.0) for each in (call, datagram, moved, call)] == [True] * 4


def test_equal_run_ids_at_different_addresses_are_different_stations() -> None:
    arbiter = Arbiter()
    assert sends(arbiter, Sender(host="1", line="1:1", run="driver"), 0.0)
    assert not sends(arbiter, Sender(host="2", line="2:1", run="driver"), 0.1)


def test_take_over_gives_control_at_once() -> None:
    arbiter = Arbiter()
    sends(arbiter, BLUE, 0.0)
    assert not sends(arbiter, RED, 0.1)
    arbiter.take(RED, 0.2)
    assert not sends(arbiter, BLUE, 0.21)
    assert sends(arbiter, RED, 0.22)


def test_take_over_before_the_first_update_waits_for_the_station() -> None:
    arbiter = Arbiter()
    sends(arbiter, BLUE, 0.0)
    arbiter.take(Sender(key="red"), 0.1)
    assert not sends(arbiter, BLUE, 0.2)
    assert sends(arbiter, RED, 0.3)
    copy = Sender(key="red", host="10.0.0.9", line="10.0.0.9:1", run="r2")
    assert not sends(arbiter, copy, 0.31)


def test_station_that_never_sends_loses_control() -> None:
    arbiter = Arbiter()
    arbiter.take(Sender(key="red"), 0.0)
    assert not sends(arbiter, BLUE, HANDOVER - 0.1)
    assert sends(arbiter, BLUE, HANDOVER)


def test_released_control_goes_to_another_sender_first() -> None:
    arbiter = Arbiter()
    sends(arbiter, BLUE, 0.0)
    assert arbiter.release(0.1) == BLUE
    refusal = arbiter.check(BLUE, 0.2)
    assert refusal is not None
    assert "blue has released control" in refusal.sentence
    assert sends(arbiter, RED, 0.3)
    arbiter.release(0.4)
    assert not sends(arbiter, RED, 0.5)
    assert sends(arbiter, RED, 0.4 + HANDOVER)


def test_memory_is_bounded() -> None:
    arbiter = Arbiter()
    sends(arbiter, BLUE, 0.0)
    for number in range(1000):
        sends(arbiter, Sender(host=str(number), line=f"{number}:1", run="x" * 32), number * 1e-3)
    assert len(arbiter.contenders) == MAX_CONTENDERS
    assert sends(arbiter, BLUE, 1.0)


def test_names_are_printable_and_short() -> None:
    for run in ("a b", "\x1b[31m", "é" * 32, "\n", "x" * 32):
        name = Sender(host="10.0.0.1", line="10.0.0.1:5", run=run).name
        assert name.isprintable()
        assert " " not in name
        assert len(name) <= 64


SENDERS = st.sampled_from(
    (
        *(BLUE, RED, PLAIN, OTHER),
        Sender(key="blue", host="10.0.0.9", line="10.0.0.9:1", run="b2"),
        Sender(key="blue", line="call"),
        Sender(host="10.0.0.3", line="10.0.0.3:1"),
        Sender(line="local-client"),
    )
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("send", "send", "send", "take", "release")), SENDERS, st.floats(0, 2)
        )
    )
)
def test_two_senders_never_mix(steps: list[tuple[str, Sender, float]]) -> None:
    """A silence, a take-over or a release separates accepted updates of two senders."""
    arbiter, now = Arbiter(), 0.0
    last: tuple[Sender, float] | None = None
    for step, sender, pause in steps:
        now += pause
        if step == "take":
            arbiter.take(sender, now)
            last = None
        elif step == "release":
            arbiter.release(now)
            last = None
        elif sends(arbiter, sender, now):
            if last is not None and not sender.is_same(last[0]):
                assert now >= last[1] + (SILENCE if sender.may_be_restart_of(last[0]) else HANDOVER)
            last = sender, now
