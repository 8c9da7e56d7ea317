"""Tests of messages that are one struct."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.errors import RemoteProtocolError
from rt.protocol import structs

TEXT = st.text(st.characters(codec="utf-8"))


class Record(msgspec.Struct):
    """A message."""

    text: str
    context: dict[str, Any] = {}


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        structs.decode(data, Record)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81\xa4text\xa1\xff",
        b"\x81\xa4text" + b"\x91" * 100_000,
        b"\x81\xa4text\xd4\x01\x00",
        b"\x81\xa4text\x01",
    ],
    ids=["empty", "not UTF-8", "deep", "extension", "another type"],
)
def test_invalid_message_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        structs.decode(data, Record)


@given(text=TEXT, context=st.dictionaries(TEXT, TEXT | st.lists(TEXT)))
def test_text_round_trips(text: str, context: dict[str, Any]) -> None:
    assert structs.decode(structs.encode(Record(text, context)), Record) == Record(text, context)


def test_lone_surrogates_and_objects_become_text() -> None:
    record: Record = structs.decode(
        structs.encode(Record("a\ud800", {"b\udfff": [{"c": "\udc80"}], "d": Record})), Record
    )
    assert record.text == r"a\ud800"
    assert record.context == {r"b\udfff": [{"c": r"\udc80"}], "d": repr(Record)}
