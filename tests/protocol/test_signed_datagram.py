"""Tests of signed control datagrams: only verified, new datagrams are accepted."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.errors import LocalProtocolError
from rt.protocol import rpc
from rt.protocol.signed_datagram import (
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


def make_pair(key: DatagramKey = BLUE, session: bytes = SESSION) -> tuple[Signer, Verifier]:
    """Return a station and a robot with a common session."""
    signer, verifier = Signer(key), Verifier(session)
    assert signer.handle_answer(verifier.check(signer.sign(b"hello"), KEYS).answer)
    return signer, verifier


def test_datagram_matches_the_specification() -> None:
    signer = Signer(BLUE)
    signer.session = SESSION
    head = b"rtc1" + BLUE.id + SESSION + (1).to_bytes(8, "big") + b"payload"
    tag = blake2b(head, key=BLUE.secret, digest_size=16).digest()
    assert signer.sign(b"payload") == head + tag


def test_answer_matches_the_specification() -> None:
    signer, verifier = make_pair()
    verifier.check(signer.sign(b""), KEYS)
    head = b"rta1" + BLUE.id + SESSION + (1).to_bytes(8, "big")
    assert verifier.check(Signer(BLUE).sign(b""), KEYS).answer == (
        head + blake2b(head, key=BLUE.secret, digest_size=16).digest()
    )


@given(st.binary(max_size=200))
def test_station_with_the_session_is_accepted(payload: bytes) -> None:
    signer, verifier = make_pair()
    checked = verifier.check(signer.sign(payload), KEYS)
    assert (checked.verdict, checked.payload, checked.key_id, checked.answer) == (
        "obeyed",
        payload,
        BLUE.id,
        b"",
    )


def test_station_without_the_session_gets_an_answer() -> None:
    signer, verifier = Signer(BLUE), Verifier(SESSION)
    checked = verifier.check(signer.sign(b"x"), KEYS)
    assert (checked.verdict, checked.payload) == ("session", b"")
    assert signer.session == NO_SESSION
    assert signer.handle_answer(checked.answer)
    assert signer.session == SESSION


def test_datagrams_recorded_before_a_restart_are_refused() -> None:
    signer, verifier = make_pair()
    recorded = [signer.sign(b"forward") for _ in range(5)]
    assert all(verifier.check(each, KEYS).verdict == "obeyed" for each in recorded)
    restarted = Verifier(b"session2")
    assert {restarted.check(each, KEYS).verdict for each in recorded} == {"session"}
    assert signer.handle_answer(restarted.check(signer.sign(b""), KEYS).answer)
    assert restarted.check(signer.sign(b"on"), KEYS).payload == b"on"


def test_restarted_station_continues_the_sequence() -> None:
    signer, verifier = make_pair()
    for _ in range(100):
        verifier.check(signer.sign(b""), KEYS)
    again = Signer(BLUE)
    assert again.handle_answer(verifier.check(again.sign(b""), KEYS).answer)
    assert verifier.check(again.sign(b"on"), KEYS).payload == b"on"


@given(st.data())
def test_datagram_with_a_changed_byte_is_refused(data: st.DataObject) -> None:
    signer, verifier = make_pair()
    datagram = bytearray(signer.sign(data.draw(st.binary(max_size=40))))
    position = data.draw(st.integers(0, len(datagram) - 1))
    datagram[position] ^= data.draw(st.integers(1, 255))
    checked = verifier.check(bytes(datagram), KEYS)
    assert checked.verdict in {"unsigned", "unknown", "forged"}
    assert (checked.payload, checked.answer) == (b"", b"")


@given(st.data())
def test_forged_datagram_consumes_no_sequence(data: st.DataObject) -> None:
    signer, verifier = make_pair()
    good = signer.sign(b"on")
    forged = good[:20] + data.draw(st.binary(min_size=8, max_size=8)) + good[28:]
    if forged != good:
        assert verifier.check(forged, KEYS).verdict == "forged"
    assert verifier.check(good, KEYS).verdict == "obeyed"


def test_station_cannot_impersonate_another() -> None:
    signer, verifier = make_pair()
    datagram = signer.sign(b"on")
    stolen = datagram[:4] + RED.id + datagram[12:]
    assert verifier.check(stolen, KEYS).verdict == "forged"


def test_revoked_key_is_unknown() -> None:
    signer, verifier = make_pair()
    assert verifier.check(signer.sign(b"on"), {RED.id: RED}).verdict == "unknown"


@given(st.binary(max_size=100))
def test_random_bytes_raise_no_error(noise: bytes) -> None:
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


def test_rpc_message_is_unsigned() -> None:
    plain = rpc.encode(rpc.Notification("update_gamepads", [{}]))
    assert Verifier(SESSION).check(plain, KEYS).verdict == "unsigned"


@given(st.lists(st.integers(0, 300), max_size=200))
def test_sequence_is_accepted_once_and_in_order(sequences: list[int]) -> None:
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


def test_old_answer_does_not_decrease_the_sequence() -> None:
    signer, verifier = make_pair()
    old = verifier.check(Signer(BLUE).sign(b""), KEYS).answer
    for _ in range(10):
        verifier.check(signer.sign(b""), KEYS)
    assert signer.handle_answer(old)
    assert verifier.check(signer.sign(b"on"), KEYS).verdict == "obeyed"


def test_signing_after_the_last_sequence_is_an_error() -> None:
    signer, verifier = make_pair()
    signer.sequence = SEQUENCE_MAX - 1
    assert verifier.check(signer.sign(b"on"), KEYS).verdict == "obeyed"
    with pytest.raises(LocalProtocolError, match="restart the robot"):
        signer.sign(b"on")


def test_keys_and_sessions_of_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        DatagramKey(b"short", bytes(32))
    with pytest.raises(ValueError, match="secret of 32"):
        DatagramKey(bytes(8), b"short")
    for session in (NO_SESSION, b"short"):
        with pytest.raises(ValueError, match="not all zero"):
            Verifier(session)


def test_notice_matches_the_specification() -> None:
    signer, verifier = make_pair()
    checked = verifier.check(signer.sign(b"x"), KEYS)
    head = b"rtn1" + BLUE.id + SESSION + checked.sequence.to_bytes(8, "big") + b"why"
    notice = verifier.notice(BLUE, checked.sequence, b"why")
    assert notice == head + blake2b(head, key=BLUE.secret, digest_size=16).digest()
    assert len(notice) == len(b"why") + OVERHEAD
    assert not signer.handle_answer(notice)
    assert signer.read_notice(notice) == b"why"


def test_notice_is_accepted_once_in_its_session() -> None:
    signer, verifier = make_pair()
    first, second = (verifier.check(signer.sign(b"x"), KEYS).sequence for _ in range(2))
    old, new = verifier.notice(BLUE, first, b"old"), verifier.notice(BLUE, second, b"new")
    wrong = (
        *(b"", b"rtn1", new[:-1], new[:-1] + bytes([new[-1] ^ 1]), new.replace(b"new", b"bad")),
        verifier.notice(RED, second, b"of another station"),
        Verifier(b"session2").notice(BLUE, second, b"of another session"),
        verifier.notice(BLUE, second + 10, b"about a datagram not sent"),
        signer.sign(b"a request"),
    )
    assert [signer.read_notice(each) for each in wrong] == [None] * len(wrong)
    assert signer.read_notice(new) == b"new"
    assert [signer.read_notice(each) for each in (new, old)] == [None, None]
