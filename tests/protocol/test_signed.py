"""Signed control datagrams: what is obeyed, what is not, and that nothing unsigned changes anything."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.errors import LocalProtocolError
from rt.protocol import rpc
from rt.protocol.signed import (
    NO_SESSION,
    OVERHEAD,
    SEQUENCE_MAX,
    DatagramKey,
    ReplayWindow,
    Signer,
    Verifier,
)

BLUE = DatagramKey(b"blue-key", bytes(range(32)))
RED = DatagramKey(b"red--key", bytes(32))
KEYS = {BLUE.id: BLUE, RED.id: RED}
SESSION = b"session1"


def met(key: DatagramKey = BLUE, session: bytes = SESSION) -> tuple[Signer, Verifier]:
    """A station and a robot that know each other."""
    signer, verifier = Signer(key), Verifier(session)
    assert signer.handle_answer(verifier.check(signer.sign(b"hello"), KEYS).answer)
    return signer, verifier


def test_a_datagram_has_the_form_that_is_written_down() -> None:
    signer = Signer(BLUE)
    signer.session = SESSION
    head = b"rtc1" + BLUE.id + SESSION + (1).to_bytes(8, "big") + b"payload"
    tag = blake2b(head, key=BLUE.secret, digest_size=16).digest()
    assert signer.sign(b"payload") == head + tag


def test_an_answer_has_the_form_that_is_written_down() -> None:
    signer, verifier = met()
    verifier.check(signer.sign(b""), KEYS)
    head = b"rta1" + BLUE.id + SESSION + (1).to_bytes(8, "big")
    assert verifier.check(Signer(BLUE).sign(b""), KEYS).answer == (
        head + blake2b(head, key=BLUE.secret, digest_size=16).digest()
    )


@given(st.binary(max_size=200))
def test_a_station_that_knows_the_session_is_obeyed(payload: bytes) -> None:
    signer, verifier = met()
    checked = verifier.check(signer.sign(payload), KEYS)
    assert (checked.verdict, checked.payload, checked.key_id, checked.answer) == (
        "obeyed",
        payload,
        BLUE.id,
        b"",
    )


def test_a_station_that_does_not_know_the_session_is_told() -> None:
    signer, verifier = Signer(BLUE), Verifier(SESSION)
    checked = verifier.check(signer.sign(b"x"), KEYS)
    assert (checked.verdict, checked.payload) == ("session", b"")
    assert signer.session == NO_SESSION
    assert signer.handle_answer(checked.answer)
    assert signer.session == SESSION


def test_what_was_recorded_before_a_restart_of_the_robot_moves_nothing() -> None:
    signer, verifier = met()
    recorded = [signer.sign(b"forward") for _ in range(5)]
    assert all(verifier.check(each, KEYS).verdict == "obeyed" for each in recorded)
    restarted = Verifier(b"session2")
    assert {restarted.check(each, KEYS).verdict for each in recorded} == {"session"}
    assert signer.handle_answer(restarted.check(signer.sign(b""), KEYS).answer)
    assert restarted.check(signer.sign(b"on"), KEYS).payload == b"on"


def test_a_station_that_was_restarted_goes_on_where_it_was() -> None:
    signer, verifier = met()
    for _ in range(100):
        verifier.check(signer.sign(b""), KEYS)
    again = Signer(BLUE)
    assert again.handle_answer(verifier.check(again.sign(b""), KEYS).answer)
    assert verifier.check(again.sign(b"on"), KEYS).payload == b"on"


@given(st.data())
def test_whatever_one_changes_in_a_datagram_it_is_not_obeyed(data: st.DataObject) -> None:
    signer, verifier = met()
    datagram = bytearray(signer.sign(data.draw(st.binary(max_size=40))))
    position = data.draw(st.integers(0, len(datagram) - 1))
    datagram[position] ^= data.draw(st.integers(1, 255))
    checked = verifier.check(bytes(datagram), KEYS)
    assert checked.verdict in {"unsigned", "unknown", "forged"}
    assert (checked.payload, checked.answer) == (b"", b"")


@given(st.data())
def test_a_forged_datagram_does_not_use_up_a_sequence(data: st.DataObject) -> None:
    signer, verifier = met()
    good = signer.sign(b"on")
    forged = good[:20] + data.draw(st.binary(min_size=8, max_size=8)) + good[28:]
    if forged != good:
        assert verifier.check(forged, KEYS).verdict == "forged"
    assert verifier.check(good, KEYS).verdict == "obeyed"


def test_a_station_cannot_speak_for_another() -> None:
    signer, verifier = met()
    datagram = signer.sign(b"on")
    stolen = datagram[:4] + RED.id + datagram[12:]
    assert verifier.check(stolen, KEYS).verdict == "forged"


def test_a_key_that_was_revoked_is_unknown() -> None:
    signer, verifier = met()
    assert verifier.check(signer.sign(b"on"), {RED.id: RED}).verdict == "unknown"


@given(st.binary(max_size=100))
def test_anything_may_come(noise: bytes) -> None:
    verifier = Verifier(SESSION)
    for datagram in (noise, b"rtc1" + noise, b"rtc1" + BLUE.id + noise):
        assert verifier.check(datagram, KEYS).verdict in {
            "unsigned",
            "malformed",
            "unknown",
            "forged",
        }
    signer = Signer(BLUE)
    assert not any(
        signer.handle_answer(datagram)
        for datagram in (noise, b"rta1" + noise, b"rta1" + BLUE.id + noise)
    )
    assert signer.session == NO_SESSION


def test_a_message_of_the_call_protocol_is_never_taken_for_a_signed_one() -> None:
    plain = rpc.encode(rpc.Notification("update_gamepads", [{}]))
    assert Verifier(SESSION).check(plain, KEYS).verdict == "unsigned"


@given(st.lists(st.integers(0, 300), max_size=200))
def test_no_sequence_is_obeyed_twice_or_after_a_newer_one(sequences: list[int]) -> None:
    window = ReplayWindow(8)
    used: list[int] = []
    for sequence in sequences:
        verdict = window.record(sequence)
        if verdict == "obeyed":
            assert sequence > max(used, default=0)
        elif verdict == "late":
            assert sequence not in used
            assert 0 < sequence < max(used)
        else:
            assert sequence in used or sequence == 0 or sum(each > sequence for each in used) >= 8
        if verdict != "replayed":
            used.append(sequence)
        assert window.newest == max(used, default=0)


def test_an_old_answer_does_not_turn_the_sequence_back() -> None:
    signer, verifier = met()
    old = verifier.check(Signer(BLUE).sign(b""), KEYS).answer
    for _ in range(10):
        verifier.check(signer.sign(b""), KEYS)
    assert signer.handle_answer(old)
    assert verifier.check(signer.sign(b"on"), KEYS).verdict == "obeyed"


def test_the_last_sequence_is_the_last() -> None:
    signer, verifier = met()
    signer.sequence = SEQUENCE_MAX - 1
    assert verifier.check(signer.sign(b"on"), KEYS).verdict == "obeyed"
    with pytest.raises(LocalProtocolError, match="restart the robot"):
        signer.sign(b"on")


def test_keys_and_sessions_have_their_lengths() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        DatagramKey(b"short", bytes(32))
    with pytest.raises(ValueError, match="secret of 32"):
        DatagramKey(bytes(8), b"short")
    for session in (NO_SESSION, b"short"):
        with pytest.raises(ValueError, match="not all zero"):
            Verifier(session)


def test_a_notice_has_the_form_that_is_written_down() -> None:
    signer, verifier = met()
    checked = verifier.check(signer.sign(b"x"), KEYS)
    head = b"rtn1" + BLUE.id + SESSION + checked.sequence.to_bytes(8, "big") + b"why"
    notice = verifier.notice(BLUE, checked.sequence, b"why")
    assert notice == head + blake2b(head, key=BLUE.secret, digest_size=16).digest()
    assert len(notice) == len(b"why") + OVERHEAD
    assert not signer.handle_answer(notice)
    assert signer.read_notice(notice) == b"why"


def test_a_notice_counts_once_and_only_from_the_robot_of_this_session() -> None:
    signer, verifier = met()
    first, second = (verifier.check(signer.sign(b"x"), KEYS).sequence for _ in range(2))
    old, new = verifier.notice(BLUE, first, b"old"), verifier.notice(BLUE, second, b"new")
    wrong = (
        *(b"", b"rtn1", new[:-1], new[:-1] + bytes([new[-1] ^ 1]), new.replace(b"new", b"bad")),
        verifier.notice(RED, second, b"of another station"),
        Verifier(b"session2").notice(BLUE, second, b"of another start"),
        verifier.notice(BLUE, second + 10, b"about what was never sent"),
        signer.sign(b"a request"),
    )
    assert [signer.read_notice(each) for each in wrong] == [None] * len(wrong)
    assert signer.read_notice(new) == b"new"
    assert [signer.read_notice(each) for each in (new, old)] == [None, None]
