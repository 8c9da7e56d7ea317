"""What the linter knows of rt's names is what the executor gives to the team's code."""

import inspect

import pytest

from rt.executor import api
from rt.lint.api import METHODS, NAMES, VALUES, Method


@pytest.mark.parametrize("name", NAMES)
def test_the_methods_and_values_are_those_of_the_executor(name: str) -> None:
    owner = getattr(api, name)
    if name == "Alliance":
        assert set(VALUES[name]) == set(owner.__members__)
        return
    methods = {
        key: value
        for key, value in vars(owner).items()
        if inspect.isfunction(value) and not key.startswith("_")
    }
    assert {key: described(value) for key, value in methods.items()} == METHODS[name]


def described(function: object) -> Method:
    assert callable(function)
    parameters = [
        each for each in inspect.signature(function).parameters.values() if each.name != "self"
    ]
    named = [each for each in parameters if each.kind is not each.VAR_POSITIONAL]
    return Method(
        tuple(each.name for each in named),
        sum(each.default is each.empty for each in named),
        rest=len(named) < len(parameters),
        is_async=inspect.iscoroutinefunction(function),
    )


def test_the_executor_gives_these_names_and_no_others() -> None:
    source = inspect.getsource(__import__("rt.executor.runner").executor.runner)
    block = source[source.index("names = {") :].partition("}")[0]
    assert [
        line.partition('"')[2].partition('"')[0] for line in block.splitlines()[1:] if '"' in line
    ] == [
        *NAMES[:2],
        "Actions",
        "Field",
        "Alliance",
        "print",
        "input",
    ]
