"""Methods for `rt call`: lookup, help and arguments."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.client import methods
from rt.errors import RemoteCallError


def argument(
    name: str, schema: dict[str, Any] | None, kind: str = "", default: str = ""
) -> dict[str, Any]:
    return {
        "name": name,
        "required": not default,
        "schema": schema,
        "type": kind,
        "default": default,
    }


def method(*arguments: dict[str, Any], doc: str = "") -> dict[str, Any]:
    return {"signature": "m(...) -> None", "doc": doc, "arguments": list(arguments), "result": None}


UID = argument("uid", {"type": "string"}, "str")
EITHER = argument("x", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "str | int")
MANY = argument(
    "uids", {"anyOf": [{"type": "string"}, {"type": "array"}]}, "str | list[str]", "None"
)
BLOCK = argument("block", {"type": "boolean"}, "bool", "False")
REST = argument("*values", {"type": "number"}, "float", "x")
SERVICES = {
    "broker-service": {"describe": method(), "status": method()},
    "device-service": {
        "describe": method(),
        "ping": method(UID, MANY, REST, doc="Ask who is there.\n\nAll of them."),
    },
    "executor-service": {"describe": method()},
}


def test_number_stays_text_for_text_argument() -> None:
    assert methods.values("m", method(UID, EITHER, MANY), ["1", "1", '["a"]']) == ["1", 1, ["a"]]
    assert methods.values("m", method(), ["1", "x"]) == [1, "x"]
    assert methods.values("m", method(REST), ["1", "2.5", "true"]) == [1, 2.5, True]
    assert methods.values("m", method(), [str(2**80)]) == [str(2**80)]


@pytest.mark.parametrize("text", ["[1,", '{"a": }', '"open'])
def test_invalid_json_is_reported_with_argument_and_type(text: str) -> None:
    with pytest.raises(
        RemoteCallError, match=r"m: argument block is not valid JSON: .*; expected bool"
    ) as caught:
        methods.values("m", method(BLOCK), [text])
    assert caught.value.context == {"method": "m", "argument": "block"}
    assert methods.values("m", method(UID), [text]) == [text]


PARAMS = argument(
    "params", {"anyOf": [{"type": "array"}, {"type": "null"}]}, "list[str] | None", "None"
)
OBJECTS = argument(
    "requests", {"type": "array", "items": {"$ref": "#/$defs/RequestSpec"}}, "list[RequestSpec]"
)
TABLE = argument("gamepads", {"type": "object"}, "dict[int, GamepadState]")


@pytest.mark.parametrize(
    ("taken", "text", "expected"),
    [
        (
            PARAMS,
            "duty_cycle",
            r"m: argument params must be a list, not duty_cycle; write JSON, such as '\[",
        ),
        (
            OBJECTS,
            "wave",
            r"argument requests must be a list, not wave; write JSON, such as '\[\{\"func\": ",
        ),
        (TABLE, "lx", "argument gamepads must be a map, not lx; write JSON"),
        (PARAMS, "[duty_cycle, enc_vel]", r"""quote the strings: '\["duty_cycle", "enc_vel"\]'"""),
        (TABLE, "{lx: 0.5}", r"""quote the strings: '\{"lx": 0\.5\}'"""),
    ],
)
def test_wrong_list_or_map_is_reported_with_example(
    taken: dict[str, Any], text: str, expected: str
) -> None:
    with pytest.raises(RemoteCallError, match=expected):
        methods.values("m", method(taken), [text])


def test_too_many_arguments_are_refused() -> None:
    many = [UID, MANY]
    for taken, expected in (([], "m takes no arguments"), (many, r"m takes only UID \[UIDS\]")):
        methods.require_count("m", method(*taken), len(taken))
        with pytest.raises(RemoteCallError, match=expected):
            methods.require_count("m", method(*taken), len(taken) + 1)
    methods.require_count("m", method(UID, REST), 9)


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        (
            "came as 5: Expected `float` <= 1.1 - at `$.lx`",
            "came as 5: expected a number <= 1.1, at lx",
        ),
        ("Expected `array | null`, got `str`", "expected a list or nothing, not text"),
        ("Expected `object`, got `str` - at `$[0]`", "expected a map, not text, at [0]"),
        ("Expected `str` of length <= 10", "expected text of length <= 10"),
        ("there is no device 'x'", "there is no device 'x'"),
    ],
)
def test_type_error_is_simplified(message: str, plain: str) -> None:
    assert methods.simplify_type_error(message) == plain


@given(st.text(), st.sampled_from([UID, EITHER, MANY, REST, argument("any", None)]))
def test_any_text_is_argument_or_one_error(text: str, taken: dict[str, Any]) -> None:
    with contextlib.suppress(RemoteCallError):
        (value,) = methods.values("m", method(taken), [text])
        is_nan = value != value  # noqa: PLR0124
        assert isinstance(value, str) or value == json.loads(text) or is_nan


def test_method_is_found_by_name_or_service() -> None:
    assert methods.find(SERVICES, "ping", None) == "device-service"
    with pytest.raises(
        RemoteCallError, match=r"use broker\.describe or device\.describe or executor\.describe"
    ):
        methods.find(SERVICES, "describe", None)
    with pytest.raises(RemoteCallError, match="no service has a method 'pin'; did you mean ping"):
        methods.find(SERVICES, "pin", None)
    with pytest.raises(RemoteCallError, match="see `rt call --list`"):
        methods.find(SERVICES, "zzz", None)
    only = {"device-service": SERVICES["device-service"]}
    with pytest.raises(
        RemoteCallError, match="device-service has no method 'zzz'; its methods: describe, ping"
    ):
        methods.find(only, "zzz", "device-service")
    with pytest.raises(
        RemoteCallError, match="broker-service and executor-service did not answer; try"
    ) as caught:
        methods.find(only, "pin", None)
    assert "did you mean" not in caught.value.message


def test_method_help_has_arguments_and_defaults() -> None:
    lines = list(methods.explain("device-service", "ping", SERVICES["device-service"]["ping"]))
    assert lines[0] == "Usage: rt call ping UID [UIDS] [VALUES]..."
    assert "  All of them." in lines
    assert "  uid      str" in lines
    assert "  uids     str | list[str]  [default: None]" in lines


def test_listing_has_first_line_of_documentation() -> None:
    text = "\n".join(methods.listing(SERVICES))
    assert "Ask who is there." in text
    assert "All of them." not in text
