"""Tests of the RPC envelope."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rt.errors import LocalProtocolError, RemoteProtocolError
from rt.protocol import rpc

ids = st.integers(0, rpc.ID_MAX)
methods = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)
errors = st.none() | st.tuples(
    st.text(st.characters(codec="utf-8")),
    st.dictionaries(st.text(st.characters(codec="utf-8")), values, max_size=3),
)
envelopes: st.SearchStrategy[rpc.Envelope] = st.one_of(
    st.builds(rpc.Request, ids, methods, st.lists(values, max_size=4)),
    st.builds(rpc.Response, ids, errors, values),
    st.builds(rpc.Notification, methods, st.lists(values, max_size=4)),
)


@given(envelopes)
def test_message_round_trips(message: rpc.Envelope) -> None:
    assert rpc.decode(rpc.encode(message)) == message


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x94\x00\x01\xa1m\xdd\xff\xff\xff\xff")
@example(b"\x94\x00\x01\xa1m" + b"\x91" * 100_000)
@example(b"\x94\x00\x01\xa1m\x91" + b"\x81" * 100_000)
@example(b"\x94\x00\x01\xa1m\x91\x81\x91\x81\x01\x01\x01")
@example(b"\x94\x00\x01\xa1\xff\x90")
@example(b"\x94\x00\x01\xa1m\x91\xd4\x05\x01")
def test_random_bytes_are_a_message_or_one_error(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert isinstance(rpc.decode(data), rpc.Request | rpc.Response | rpc.Notification)


@given(envelopes, st.data())
def test_changed_byte_raises_no_other_error(message: rpc.Envelope, data: st.DataObject) -> None:
    raw = bytearray(rpc.encode(message))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteProtocolError):
        rpc.decode(raw)


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (rpc.Request(7, "ping", ["1"]), [0, 7, "ping", ["1"]]),
        (rpc.Response(7, None, 3), [1, 7, None, 3]),
        (rpc.Response(7, ("no", {"uid": "1"}), None), [1, 7, ["no", {"uid": "1"}], None]),
        (rpc.Notification("update", [{}]), [2, "update", [{}]]),
    ],
)
def test_wire_format_matches_the_specification(message: rpc.Envelope, wire: list[Any]) -> None:
    assert msgspec.msgpack.decode(rpc.encode(message)) == wire


@pytest.mark.parametrize(
    "wire",
    [
        None,
        5,
        [],
        {},
        [3, 1, "m", []],
        [True, 1, "m", []],
        [0, 1, "m"],
        [0, 1, "m", [], 5],
        [0, -1, "m", []],
        [0, 2**32, "m", []],
        [0, 1.0, "m", []],
        [0, 1, "", []],
        [0, 1, "m" * 129, []],
        [0, 1, b"m", []],
        [0, 1, "m", {}],
        [1, 1, "boom", None],
        [1, 1, ["boom"], None],
        [1, 1, ["boom", []], None],
        [2, "m", None],
    ],
)
def test_other_messages_are_refused_as_an_envelope(wire: Any) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        rpc.decode(msgspec.msgpack.encode(wire))
    assert caught.value.context["reason"] == "envelope"


def test_message_with_trailing_bytes_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        rpc.decode(rpc.encode(rpc.Notification("m", [])) + b"\0")


def test_too_long_message_is_neither_sent_nor_received() -> None:
    with pytest.raises(LocalProtocolError, match="send it in parts"):
        rpc.encode(rpc.Notification("m", [bytes(rpc.MAX_MESSAGE)]))
    with pytest.raises(RemoteProtocolError) as caught:
        rpc.decode(msgspec.msgpack.encode([2, "m", [bytes(rpc.MAX_MESSAGE)]]))
    assert caught.value.context["reason"] == "size"


def test_message_of_the_maximum_length_is_accepted() -> None:
    size = rpc.MAX_MESSAGE - len(rpc.encode(rpc.Notification("m", [bytes(70_000)]))) + 70_000
    data = rpc.encode(rpc.Notification("m", [bytes(size)]))
    assert len(data) == rpc.MAX_MESSAGE
    assert isinstance(rpc.decode(data), rpc.Notification)


def _recursive() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value",
    [object(), 2**64, "\ud800", _recursive()],
    ids=["object", "big", "surrogate", "recursive"],
)
def test_value_that_cannot_be_encoded_is_a_local_error(value: Any) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent"):
        rpc.encode(rpc.Notification("m", [value]))


@given(envelopes)
def test_peek_returns_the_call_without_its_arguments(message: rpc.Envelope) -> None:
    if isinstance(message, rpc.Response):
        assert rpc.peek(rpc.encode(message)) is None
    else:
        assert rpc.peek(rpc.encode(message)) == msgspec.structs.replace(message, params=[])


@given(ids, methods)
def test_peek_ignores_the_bytes_of_the_arguments(call_id: int, method: str) -> None:
    call = rpc.encode(rpc.Request(call_id, method, []))
    assert rpc.peek(call[:-1] + b"\xc1" * 100) == rpc.Request(call_id, method, [])
    assert len(call) <= rpc.HEAD_MAX


@pytest.mark.parametrize(
    ("head", "call_id"),
    [
        (b"\x94\x00\x07\xa4ping", 7),
        (b"\xdc\x00\x04\x00\xcc\x07\xd9\x04ping", 7),
        (b"\xdd\x00\x00\x00\x04\xcc\x00\xcd\x00\x07\xda\x00\x04ping", 7),
        (b"\x94\xcd\x00\x00\xce\xff\xff\xff\xff\xdb\x00\x00\x00\x04ping", rpc.ID_MAX),
        (b"\x94\x00\xcf\x00\x00\x00\x00\x00\x00\x00\x07\xa4ping", 7),
    ],
)
def test_peek_reads_every_form_of_messagepack(head: bytes, call_id: int) -> None:
    assert rpc.decode(head + b"\x90") == rpc.peek(head) == rpc.Request(call_id, "ping", [])


@given(st.binary(max_size=40))
@example(b"\x94\x00\x07\xdb\xff\xff\xff\xffping")
@example(b"\x94\x00\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa4ping")
@example(b"\x94\x00\x07\xd9\x81" + b"m" * 129)
@example(b"\x93\x02\xa0\x90")
@example(b"\x93\x02\xa1\xff\x90")
@example(b"\x94\x00\xff\xa1m\x90")
def test_peek_raises_no_error(data: bytes) -> None:
    head = rpc.peek(data)
    assert head is None or 1 <= len(head.method) <= rpc.METHOD_MAX
