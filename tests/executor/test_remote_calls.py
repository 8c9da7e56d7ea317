"""Callers may execute the functions that team code defines, and no other name of its module."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.errors import ExecutionError
from rt.executor import remote_calls
from rt.executor.loader import load
from rt.executor.output import TeamOutput

HOSTILE = """
import asyncio, functools, os, subprocess
from functools import lru_cache, partial, wraps
from os import system, remove
from subprocess import Popen, run
from calling_helper import lift
from calling_helper import *

def drive(speed, turn=0.0): return speed
def typed(name: str, count: int, ratio: float = 1.0): return name, count, ratio
def nested(rows: list[list[int]], table: "dict[str, float] | None" = None): return rows
def many(*numbers: int): return sum(numbers)
def only_by_name(*, force): return force
def _private(): pass
def __dunder__(): pass
def numbers(): yield 1
async def later(): pass
async def stream(): yield 1

class Arm:
    def raise_(self): pass
    def __call__(self): pass
    @staticmethod
    def static(): pass

arm = Arm()
method = arm.raise_
called = Arm()
partly = partial(system)
quick = lambda: 1
builtin = exec
opened = open
evaluate = eval
importer = __import__
cached = lru_cache(drive)
code = drive.__code__
bound = os.environ.get

def logged(function):
    @wraps(function)
    def call(*args): return function(*args)
    return call

@logged
def wrapped(angle: int): return angle

class Odd:
    def __init__(self, value): raise SystemExit

def odd(value: Odd): pass
def unknown_type(value: "Nowhere"): pass
def anything(value: object): return value
made = {}
exec("def generated(): pass", made)
generated = made["generated"]
"""


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    # A robot loads code from one folder only; here each test has its own.
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("calling_code", "calling_helper"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    (tmp_path / "calling_helper.py").write_text(
        "from shutil import rmtree\ndef lift(height: int): return height\n"
    )
    path = tmp_path / "calling_code.py"
    path.write_text(HOSTILE)
    return vars(load(path, {"print": TeamOutput.print})), str(tmp_path)


@pytest.mark.parametrize("name", ["drive", "typed", "wrapped", "lift", "many"])
def test_function_of_team_code_can_be_executed(team: tuple[dict[str, Any], str], name: str) -> None:
    assert callable(remote_calls.function(*_of(team, name)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *(
            (name, "")
            for name in (
                "system",
                "remove",
                "run",
                "rmtree",
                "wraps",
                "print",
                "os",
                "functools",
                "asyncio",
            )
        ),
        *((name, "it is a type") for name in ("Popen", "Arm", "partial")),
        *((name, "builtin_function") for name in ("builtin", "opened", "evaluate", "importer")),
        *((name, "it is a method") for name in ("method", "bound")),
        *(
            (name, "begins with an underscore")
            for name in ("_private", "__dunder__", "__builtins__", "__loader__")
        ),
        ("called", "it is a Arm"),
        ("partly", "it is a partial"),
        ("cached", "lru_cache"),
        ("quick", "it is a lambda"),
        ("code", "it is a code"),
        ("numbers", "it is a generator"),
        ("stream", "it is a generator"),
        ("later", "it is async"),
        ("generated", "it is imported from a library"),
    ],
)
def test_other_names_cannot_be_executed(
    team: tuple[dict[str, Any], str], name: str, reason: str
) -> None:
    with pytest.raises(
        ExecutionError, match=f"{name} cannot be executed: .*{reason}.*your own files"
    ):
        remote_calls.function(*_of(team, name))


def test_only_functions_of_team_code_are_listed(team: tuple[dict[str, Any], str]) -> None:
    names, folder = team
    assert set(remote_calls.functions(names, folder)) == {
        *("drive", "typed", "nested", "many", "only_by_name", "wrapped", "logged", "lift"),
        *("odd", "unknown_type", "anything"),
    }


@pytest.mark.parametrize(
    ("name", "values", "result"),
    [
        ("drive", [0.5], 0.5),
        ("drive", ["fast", None], "fast"),
        ("typed", ["a", 1, 2], ("a", 1, 2.0)),
        ("nested", [[[1], [2]], {"a": 1}], [[1], [2]]),
        ("many", [1, 2, 3], 6),
        ("many", [], 0),
        ("wrapped", [7], 7),
        ("lift", [3], 3),
        ("anything", [{"a": [1]}], {"a": [1]}),
    ],
)
def test_arguments_of_annotated_types_are_passed(
    team: tuple[dict[str, Any], str], name: str, values: list[Any], result: object
) -> None:
    function = remote_calls.function(*_of(team, name))
    assert function(*remote_calls.arguments(function, name, values)) == result


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("drive", [], r"drive\(speed, turn=0.0\) cannot be called with 0 arguments"),
        ("drive", [1, 2, 3], "cannot be called with 3 arguments"),
        ("typed", ["a", "1"], "typed: argument count came as '1': Expected `int`, got `str`"),
        ("typed", [5, 1], "argument name came as 5: Expected `str`"),
        ("typed", ["a", 1, True], "argument ratio came as True: Expected `float`, got `bool`"),
        (
            "nested",
            [[[1], ["2"]]],
            r"argument rows came as .*Expected `int`, got `str` - at `\$\[1\]\[0\]`",
        ),
        ("nested", [[[1]], {"a": "b"}], "argument table came as .*Expected `float`"),
        ("many", [1, "2"], "argument numbers came as '2'"),
        ("wrapped", ["7"], "wrapped: argument angle came as '7': Expected `int`"),
        ("wrapped", [1, 2], r"wrapped\(angle: int\) cannot be called with 2 arguments"),
        ("only_by_name", [1], "cannot be called with 1 argument"),
        ("only_by_name", [], "cannot be called with 0 arguments"),
        ("odd", [1], "argument value is annotated as .*Odd, which a call cannot carry; use bool"),
        ("unknown_type", [1], "its annotations cannot be read: NameError"),
        ("typed", ["x" * 100_000, "\x1b" * 100_000], "argument count came as"),
    ],
)
def test_other_arguments_are_refused_before_the_call(
    team: tuple[dict[str, Any], str], name: str, values: list[Any], message: str
) -> None:
    function = remote_calls.function(*_of(team, name))
    with pytest.raises(ExecutionError, match=message) as caught:
        remote_calls.arguments(function, name, values)
    assert len(caught.value.message) < 700
    assert caught.value.message.isprintable()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8
)


def takes_an_int_and_a_text(number: int, text: str = "") -> None:
    """Has a signature and no body."""


@given(st.lists(plain, max_size=4))
def test_accepted_arguments_have_annotated_types(values: list[Any]) -> None:
    try:
        number, *text = remote_calls.arguments(takes_an_int_and_a_text, "f", values)
    except ExecutionError:
        return
    assert type(number) is int
    assert all(type(each) is str for each in text)


def _of(team: tuple[dict[str, Any], str], name: str) -> tuple[dict[str, Any], str, str]:
    names, folder = team
    return names, name, folder
