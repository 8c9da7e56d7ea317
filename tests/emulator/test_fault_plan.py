"""The faults of an emulated device follow from the seed and the UID alone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.emulator.faults import FREEZE_TIME, Fault, FaultKind, Faults, parse_fault, parse_faults
from rt.errors import DeviceError
from rt.protocol.frames import DELIMITER, FrameReader, encode
from rt.protocol.message import HbReq, Message

ALL = tuple(parse_fault(kind) for kind in FaultKind)
FRAMES = [encode(HbReq(number)) for number in range(200)]


def kinds(*texts: str, seed: int = 1, uid: int = 7) -> Faults:
    return Faults(parse_faults(texts), seed, uid)


def decisions(faults: Faults, questions: list[int]) -> list[object]:
    """Return the results of a sequence of calls, each the number of one of six methods."""
    asked = (
        lambda now: faults.transform(FRAMES[now % len(FRAMES)]),
        lambda _: faults.next_delay(),
        lambda _: faults.lifetime(),
        lambda _: faults.ends_with_reset(),
        lambda _: faults.reconnect_delay(),
        faults.frozen_until,
    )
    return [asked[question](number) for number, question in enumerate(questions)]


questions = st.lists(st.integers(0, 5), max_size=60)
seeds = st.integers(0, 2**40)
uids = st.integers(0, 2**88 - 1)


@given(seeds, uids, questions)
def test_same_seed_and_uid_give_same_decisions(seed: int, uid: int, asked: list[int]) -> None:
    assert decisions(Faults(ALL, seed, uid), asked) == decisions(Faults(ALL, seed, uid), asked)


def test_other_seed_or_uid_gives_other_decisions() -> None:
    asked = [0, 1, 2, 3, 4] * 20
    results = [decisions(Faults(ALL, seed, uid), asked) for seed in range(3) for uid in range(3)]
    assert all(one != other for number, one in enumerate(results) for other in results[:number])


@given(seeds, uids, st.binary(min_size=1, max_size=60))
def test_device_without_faults_changes_nothing(seed: int, uid: int, frame: bytes) -> None:
    sound = Faults((), seed, uid)
    assert sound.transform(frame) == frame
    assert (sound.next_delay(), sound.reconnect_delay()) == (0, 0)
    assert sound.lifetime() == float("inf")
    assert sound.frozen_until(5) == 5
    assert not sound.disconnects


@given(seeds, uids, st.binary(min_size=1, max_size=60))
def test_corrupted_frame_always_differs(seed: int, uid: int, frame: bytes) -> None:
    assert Faults([Fault(FaultKind.CORRUPT, 1.0)], seed, uid).transform(frame) != frame


@given(seeds)
def test_corrupted_frame_is_rarely_valid(seed: int) -> None:
    faults = Faults([Fault(FaultKind.CORRUPT, 1.0)], seed, 1)
    read: list[Message] = []
    for frame in FRAMES:
        # An inserted byte may be a delimiter, which leaves the rest a whole frame.
        items = FrameReader().feed(faults.transform(frame) + DELIMITER)
        read += [item for item in items if isinstance(item, Message)]
    assert len(read) < len(FRAMES) / 2


@pytest.mark.parametrize("kind", ["drop", "corrupt"])
@given(seed=seeds, fraction=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_requested_fraction_of_frames_is_affected(kind: str, seed: int, fraction: float) -> None:
    faults = kinds(f"{kind}={fraction}", seed=seed)
    affected = sum(faults.transform(frame) != frame for frame in FRAMES * 5)
    assert affected == pytest.approx(1000 * fraction, abs=120)


@given(seeds, st.floats(0.001, 10))
def test_delay_does_not_exceed_its_maximum(seed: int, most: float) -> None:
    faults = kinds(f"delay={most}", seed=seed)
    assert all(0 <= faults.next_delay() <= most for _ in range(50))


@given(seeds, st.floats(0.1, 3600))
def test_line_ends_about_as_often_as_requested(seed: int, seconds: float) -> None:
    faults = kinds(f"disconnect={seconds}", seed=seed)
    assert faults.disconnects
    assert all(0.5 * seconds <= faults.lifetime() <= 1.5 * seconds for _ in range(20))
    assert all(0 <= faults.reconnect_delay() <= 0.5 for _ in range(20))


@given(seeds, st.floats(0.1, 100), st.lists(st.floats(0, 50), min_size=1, max_size=40))
def test_freeze_does_not_depend_on_frequency_of_calls(
    seed: int, seconds: float, steps: list[float]
) -> None:
    often, seldom = (kinds(f"freeze={seconds}", seed=seed) for _ in range(2))
    assert often.frozen_until(0.0) == seldom.frozen_until(0.0) == 0.0
    now = 0.0
    for step in steps:
        now += step / 2
        often.frozen_until(now)
        now += step / 2
        thaws = often.frozen_until(now)
        assert thaws == seldom.frozen_until(now)
        assert now <= thaws <= now + FREEZE_TIME


@given(seeds)
def test_device_is_awake_between_two_freezes(seed: int) -> None:
    faults = kinds("freeze=2", seed=seed)
    frozen = [faults.frozen_until(number / 10) > number / 10 for number in range(1000)]
    freezes = [
        number
        for number, (before, after) in enumerate(itertools.pairwise(frozen))
        if after > before
    ]
    assert 10 <= len(freezes) <= 26
    gaps = [later - earlier for earlier, later in itertools.pairwise(freezes)]
    assert all(39 <= gap <= 61 for gap in gaps)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("drop", Fault(FaultKind.DROP, 0.1)),
        ("delay", Fault(FaultKind.DELAY, 0.1)),
        ("corrupt", Fault(FaultKind.CORRUPT, 0.1)),
        ("disconnect", Fault(FaultKind.DISCONNECT, 2)),
        ("freeze", Fault(FaultKind.FREEZE, 5)),
        ("drop=0.5", Fault(FaultKind.DROP, 0.5)),
        ("delay=2", Fault(FaultKind.DELAY, 2)),
    ],
)
def test_fault_is_a_kind_and_optional_value(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault
    assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("corupt", "did you mean corrupt"),
        ("", "unknown fault ''"),
        ("drop=2", "drop must be 0 to 1 of the frames"),
        ("drop=", "drop must be 0 to 1"),
        ("delay=nan", "delay must be 0 to 10 s"),
        ("freeze=soon", "freeze must be 0.1 to 3600 s"),
        ("disconnect=0", "disconnect must be 0.1 to 3600 s"),
    ],
)
def test_invalid_fault_says_what_is_allowed(text: str, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        parse_fault(text)


def test_fault_given_twice_is_refused() -> None:
    with pytest.raises(DeviceError, match="delay is given twice"):
        parse_faults(["delay=1", "drop", "delay=2"])
