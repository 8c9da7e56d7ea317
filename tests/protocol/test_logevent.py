"""Tests of log events: every event can be encoded, and invalid bytes are refused."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.errors import RemoteProtocolError
from rt.protocol import exception, logevent, rpc

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=8,
)
EVENT = {
    "event": "hello",
    "level": "info",
    "timestamp": "2026-01-01T00:00:00.000000Z",
    "app": "device",
}


class Unprintable:
    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_every_event_becomes_a_line_of_json(context: dict[str, Any]) -> None:
    line = logevent.encode_line({**context, **EVENT})
    assert b"\n" not in line
    assert EVENT.items() <= json.loads(line, parse_constant=pytest.fail).items()


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_every_event_round_trips_over_the_network(context: dict[str, Any]) -> None:
    frames = logevent.encode({**context, **EVENT})
    assert EVENT.items() <= logevent.decode(frames).items()


@pytest.mark.parametrize(
    "value",
    [
        Unprintable(),
        {"a": Unprintable()},
        {Unprintable(): 1},
        1 << 70,
        10**5000,
        "\ud800",
        {1: math.nan},
        {"deep": [[[[[[[[1]]]]]]]]},
    ],
    ids=[
        "unprintable",
        "unprintable value",
        "unprintable key",
        "big",
        "too many digits",
        "surrogate",
        "key and NaN",
        "deep",
    ],
)
def test_odd_values_become_text(value: object) -> None:
    event = {**EVENT, "odd": value}
    json.loads(logevent.encode_line(event), parse_constant=pytest.fail)
    assert logevent.decode(logevent.encode(event))["event"] == "hello"


def test_recursive_value_is_truncated() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert logevent.decode(logevent.encode({**EVENT, "loop": loop}))["event"] == "hello"
    assert json.loads(logevent.encode_line({**EVENT, "loop": loop}))["event"] == "hello"


def test_too_long_event_is_truncated_and_marked() -> None:
    topic, payload = logevent.encode({**EVENT, "event": "x" * 100_000, "context": "y" * 100_000})
    assert len(payload) <= logevent.MAX_EVENT
    event = logevent.decode((topic, payload))
    assert event["event"] == "x" * 4096
    assert event["cut"] > 200_000
    assert "context" not in event


@pytest.mark.parametrize(
    "sentence", ["x" * 100_000, "\N{ROBOT FACE}" * 50_000, "\x00" * 50_000, "\ud800" * 50_000]
)
@pytest.mark.parametrize("app", ["executor", "\x01" * 20_000, 5, None])
def test_shortened_event_fits_file_and_subscriber(sentence: str, app: object) -> None:
    event = {**EVENT, "event": sentence, "app": app, "mode": "teleop"}
    line, (topic, payload) = logevent.encode_line(event), logevent.encode(event)
    assert len(line) <= logevent.MAX_LINE
    assert len(payload) <= logevent.MAX_EVENT
    for decoded in (json.loads(line), logevent.decode((topic, payload))):
        assert len(decoded["event"]) >= 1000
        assert (decoded["timestamp"], decoded["mode"]) == (EVENT["timestamp"], "teleop")
        assert decoded.get("app") == (app if app in {"executor", 5} else None)
        assert decoded["cut"] > 40_000


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_random_bytes_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        logevent.decode(frames)


@pytest.mark.parametrize(
    "message",
    [
        [0, 1, "info", [EVENT]],
        [2, "info", []],
        [2, "info", [EVENT, EVENT]],
        [2, "info", ["hello"]],
        [2, "info", [{"level": "info"}]],
        [2, "info", [{"event": 5}]],
        [2, "info", [{**EVENT, "level": "error"}]],
        [2, "info", [{**EVENT, 5: 6}]],
        [2, "info", [{**EVENT, "timestamp": "yesterday"}]],
        [2, "info", [{**EVENT, "timestamp": 5}]],
        [2, "info", [{**EVENT, "long": "x" * 20_000}]],
        [2, "loud", [EVENT]],
    ],
)
def test_invalid_event_is_refused(message: object) -> None:
    with pytest.raises(RemoteProtocolError):
        logevent.decode((b"info", msgspec.msgpack.encode(message)))


def test_topic_other_than_the_level_is_refused() -> None:
    payload = rpc.encode(rpc.Notification("info", [EVENT]))
    assert logevent.decode((b"info", payload)) == EVENT
    with pytest.raises(RemoteProtocolError):
        logevent.decode((b"error", payload))


def test_missed_events_are_counted_by_level() -> None:
    gaps = logevent.GapCounter()
    received = [("info", 5), ("info", 6), ("error", 1), ("info", 9), ("error", 2)]
    assert [gaps.count({"level": level, "seq": number}) for level, number in received] == [
        0,
        0,
        0,
        2,
        0,
    ]
    assert gaps.missed == 2
    assert gaps.count({"level": "info", "seq": 1}) == 0  # restarted
    gaps.restart()
    assert gaps.count({"level": "info", "seq": 100}) == 0
    assert gaps.count({"level": "info"}) == 0


class TestException:
    def test_data_contains_type_message_frames_and_cause(self) -> None:
        def inner() -> None:
            raise KeyError("motor")

        try:
            try:
                inner()
            except KeyError as error:
                raise ValueError("no such motor") from error
        except ValueError as error:
            data = exception.data(error)
        assert (data["type"], data["message"]) == ("ValueError", "no such motor")
        assert data["cause"]["type"] == "KeyError"
        assert data["cause"]["frames"][-1]["func"] == "inner"
        text = exception.text(data)
        assert (
            text.index("KeyError")
            < text.index("which led to:")
            < text.index("ValueError: no such motor")
        )
        assert json.loads(json.dumps(data)) == data

    def test_data_of_a_group_contains_its_parts(self) -> None:
        data = exception.data(ExceptionGroup("both", [ValueError("one"), TypeError("two")]))
        assert [part["type"] for part in data["errors"]] == ["ValueError", "TypeError"]
        assert "TypeError: two" in exception.text(data)

    def test_data_is_bounded(self) -> None:
        def deep(left: int) -> None:
            if left == 0:
                raise RecursionError("x" * 10_000)
            deep(left - 1)

        try:
            deep(200)
        except RecursionError as error:
            data = exception.data(error)
        assert len(data["frames"]) == exception.MAX_FRAMES
        assert len(data["message"]) == exception.MAX_MESSAGE

    def test_error_without_text_is_named_by_its_type(self) -> None:
        class Bad(Exception):  # noqa: N818 - a short name
            def __str__(self) -> str:
                raise ValueError

        assert "Bad" in exception.data(Bad())["message"]

    def test_other_values_are_rendered_unchanged(self) -> None:
        assert exception.text("Traceback ...") == "Traceback ..."
        assert exception.text({"frames": 5, "errors": [1]}).splitlines()[0] == "None: None"


@pytest.mark.parametrize(
    "char", ["\x1b", "\x7f", "\x80", "\x9b", "\x9f", "\u2028", "\u202e", "\u2066", "\u2069"]
)
def test_control_characters_are_escaped_without_loss(char: str) -> None:
    event = {"event": f"a{char}b", "level": "info", f"k{char}": [char, float("nan")]}
    for each in (event, {**event, f"k{char}": None}):
        line = logevent.encode_line(each)
        assert char.encode() not in line
        assert logevent.decode_line(line) == {
            **each,
            f"k{char}": [char, "nan"] if each[f"k{char}"] else None,
        }
