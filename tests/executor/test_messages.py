"""Messages of the executor's channel, with errors of team code that carry any context."""

from typing import Any

import pytest

from rt.errors import ExecutionError
from rt.executor import messages
from rt.executor.messages import Over, Refused
from rt.executor.runner import _result
from rt.protocol import structs


def decode(data: bytes) -> Any:
    return structs.decode(data, messages.Answer)


class Evil:
    """An object that raises whenever it is used."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__
    __iter__ = __str__


def endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


CONTEXTS = {
    "a big number": {"line": 1 << 64},
    "a negative number": {"line": -(1 << 63) - 1},
    "a number with too many digits": {"line": 10**5000},
    "a surrogate": {"path": "\udcff", "\udcff": 1},
    "an object": {"value": object()},
    "an evil object": {"value": Evil(), "more": [Evil(), {Evil(): Evil()}]},
    "keys that are no text": {1: 2, (3, 4): 5, None: 6},
    "itself": endless(),
    "a map as a key": {"value": {frozenset({1}): 2}},
    "something else": 5,
    "an evil context": Evil(),
    "a set of bytes": {"value": {b"\xff"}},
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_error_with_any_context_reaches_the_root(context: Any) -> None:
    refused = decode(messages.encode(Refused("studentcode.py:3: wrong", context)))
    assert isinstance(refused, Refused)
    assert refused.message == "studentcode.py:3: wrong"
    over = decode(messages.encode(Over("wrong", context)))
    assert isinstance(over, Over)
    assert over.error == "wrong"


def test_plain_context_is_unchanged() -> None:
    context = {
        "path": "studentcode.py",
        "line": 3,
        "wanted": ["a", "b"],
        "limit": 0.5,
        "again": True,
        "none": None,
    }
    assert decode(messages.encode(Refused("wrong", context))) == Refused("wrong", context)


def test_error_that_is_too_long_keeps_its_beginning() -> None:
    answer = decode(messages.encode(Over("x" * 10_000, {"value": "y" * 200_000})))
    assert isinstance(answer, Over)
    assert answer.error.startswith("xxx")


class Mute(Exception):  # noqa: N818 - the text of the error is what the test is about
    def __str__(self) -> str:
        raise ZeroDivisionError


class OddError(ExecutionError):
    def __init__(self) -> None:
        super().__init__("odd")
        self.message = 5  # type: ignore[assignment]
        self.context = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "error", [ValueError(), AssertionError(), Mute(), OddError(), KeyError("\udcff"), SystemExit()]
)
def test_error_without_text_is_still_reported_as_an_error(error: BaseException) -> None:
    answer = decode(messages.encode(_result(error)))
    assert isinstance(answer, Over)
    assert answer.error
