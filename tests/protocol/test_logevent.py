"""Log events as they travel: whatever is logged can be encoded, and whatever a stranger sends is an event or is refused."""

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


class Evil:
    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_whatever_is_logged_becomes_a_line_of_json(context: dict[str, Any]) -> None:
    line = logevent.encode_line({**context, **EVENT})
    assert b"\n" not in line
    assert EVENT.items() <= json.loads(line, parse_constant=pytest.fail).items()


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_whatever_is_logged_can_be_sent_and_is_the_same_event_there(
    context: dict[str, Any],
) -> None:
    frames = logevent.encode({**context, **EVENT})
    assert EVENT.items() <= logevent.decode(frames).items()


@pytest.mark.parametrize(
    "value",
    [
        Evil(),
        {"a": Evil()},
        {Evil(): 1},
        1 << 70,
        10**5000,
        "\ud800",
        {1: math.nan},
        {"deep": [[[[[[[[1]]]]]]]]},
    ],
    ids=[
        "evil",
        "evil value",
        "evil key",
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


def test_a_value_that_contains_itself_is_cut_off() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert logevent.decode(logevent.encode({**EVENT, "loop": loop}))["event"] == "hello"
    assert json.loads(logevent.encode_line({**EVENT, "loop": loop}))["event"] == "hello"


def test_an_event_that_is_too_long_is_cut_and_says_so() -> None:
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
def test_whatever_is_too_long_is_short_enough_for_file_and_subscriber(
    sentence: str, app: object
) -> None:
    event = {**EVENT, "event": sentence, "app": app, "mode": "teleop"}
    line, (topic, payload) = logevent.encode_line(event), logevent.encode(event)
    assert len(line) <= logevent.MAX_LINE
    assert len(payload) <= logevent.MAX_EVENT
    for told in (json.loads(line), logevent.decode((topic, payload))):
        assert len(told["event"]) >= 1000
        assert (told["timestamp"], told["mode"]) == (EVENT["timestamp"], "teleop")
        assert told.get("app") == (app if app in {"executor", 5} else None)
        assert told["cut"] > 40_000


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_bytes_of_a_stranger_are_refused(frames: list[bytes]) -> None:
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
def test_what_is_nearly_an_event_is_refused(message: object) -> None:
    with pytest.raises(RemoteProtocolError):
        logevent.decode((b"info", msgspec.msgpack.encode(message)))


def test_a_topic_that_is_not_the_level_is_refused() -> None:
    payload = rpc.encode(rpc.Notification("info", [EVENT]))
    assert logevent.decode((b"info", payload)) == EVENT
    with pytest.raises(RemoteProtocolError):
        logevent.decode((b"error", payload))


def test_what_was_missed_is_counted_by_level() -> None:
    gaps = logevent.GapCounter()
    came = [("info", 5), ("info", 6), ("error", 1), ("info", 9), ("error", 2)]
    assert [gaps.count({"level": level, "seq": number}) for level, number in came] == [
        0,
        0,
        0,
        2,
        0,
    ]
    assert gaps.missed == 2
    assert gaps.count({"level": "info", "seq": 1}) == 0  # started again
    gaps.restart()
    assert gaps.count({"level": "info", "seq": 100}) == 0
    assert gaps.count({"level": "info"}) == 0


class TestException:
    def test_it_tells_type_message_frames_and_cause(self) -> None:
        def inner() -> None:
            raise KeyError("motor")

        try:
            try:
                inner()
            except KeyError as error:
                raise ValueError("no such motor") from error
        except ValueError as error:
            told = exception.data(error)
        assert (told["type"], told["message"]) == ("ValueError", "no such motor")
        assert told["cause"]["type"] == "KeyError"
        assert told["cause"]["frames"][-1]["func"] == "inner"
        text = exception.text(told)
        assert (
            text.index("KeyError")
            < text.index("which led to:")
            < text.index("ValueError: no such motor")
        )
        assert json.loads(json.dumps(told)) == told

    def test_a_group_tells_its_parts(self) -> None:
        told = exception.data(ExceptionGroup("both", [ValueError("one"), TypeError("two")]))
        assert [part["type"] for part in told["errors"]] == ["ValueError", "TypeError"]
        assert "TypeError: two" in exception.text(told)

    def test_it_is_bounded(self) -> None:
        def deep(left: int) -> None:
            if left == 0:
                raise RecursionError("x" * 10_000)
            deep(left - 1)

        try:
            deep(200)
        except RecursionError as error:
            told = exception.data(error)
        assert len(told["frames"]) == exception.MAX_FRAMES
        assert len(told["message"]) == exception.MAX_MESSAGE

    def test_an_error_whose_text_cannot_be_made_is_told_by_its_type(self) -> None:
        class Bad(Exception):  # noqa: N818 - a name of its own
            def __str__(self) -> str:
                raise ValueError

        assert "Bad" in exception.data(Bad())["message"]

    def test_what_is_no_data_is_shown_as_it_is(self) -> None:
        assert exception.text("Traceback ...") == "Traceback ..."
        assert exception.text({"frames": 5, "errors": [1]}).splitlines()[0] == "None: None"


@pytest.mark.parametrize(
    "char", ["\x1b", "\x7f", "\x80", "\x9b", "\x9f", "\u2028", "\u202e", "\u2066", "\u2069"]
)
def test_line_commands_no_terminal_and_loses_nothing(char: str) -> None:
    event = {"event": f"a{char}b", "level": "info", f"k{char}": [char, float("nan")]}
    for each in (event, {**event, f"k{char}": None}):
        line = logevent.encode_line(each)
        assert char.encode() not in line
        assert logevent.decode_line(line) == {
            **each,
            f"k{char}": [char, "nan"] if each[f"k{char}"] else None,
        }
