"""Checks of rt's names: that what is called is there, and takes what it is given."""

import ast
from collections.abc import Iterator

from rt.config import nearest
from rt.lint.api import METHODS, VALUES, Method, owner_of
from rt.lint.check import Case, Fault, check


@check("RT101", "unknown-method", "error")
def unknown_method(case: Case) -> Iterator[Fault]:
    """One of rt's names is asked for something that it does not have."""
    for node, scope in case.module.nodes():
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
            continue
        owner = owner_of(case.module, scope, node.value)
        if owner is None or node.attr.startswith("_"):
            continue
        there = (*METHODS.get(owner, {}), *VALUES.get(owner, ()))
        if node.attr in there or (owner == "Alliance" and not node.attr.isupper()):
            continue
        hint = nearest(node.attr, there) or f"; it has {', '.join(there)}"
        yield node, f"{owner} has no {node.attr}{hint}"


@check("RT102", "wrong-arguments", "error")
def wrong_arguments(case: Case) -> Iterator[Fault]:
    """A method of rt's is called with too few or too many arguments, or with one that it does not have."""
    for call in case.calls:
        method, given = call.method, f"{call.owner}.{call.name}"
        for keyword in call.node.keywords:
            if keyword.arg is not None and keyword.arg not in method.params:
                hint = nearest(keyword.arg, method.params) or f": write {_signature(given, method)}"
                yield call.node, f"{given} has no argument {keyword.arg}{hint}"
                break
            if keyword.arg in method.params[: len(call.node.args)] and call.certain:
                yield call.node, f"{given} is given {keyword.arg} twice"
                break
        else:
            positional = [each for each in call.node.args if not isinstance(each, ast.Starred)]
            missing = [name for name in method.params[: method.required] if name not in call.arguments]
            if len(positional) > len(method.params) and not method.rest:
                yield call.node, f"{_signature(given, method)} is called with {len(positional)} arguments"
            elif missing and call.certain:
                yield call.node, f"{_signature(given, method)} is called without {' and '.join(missing)}"


@check("RT103", "input-call", "error")
def input_call(case: Case) -> Iterator[Fault]:
    """``input`` is called, but a robot's program has no keyboard."""
    for node, scope in case.module.nodes():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "input"
            and case.module.finder(scope, "input") is None
        ):
            yield node, "input() cannot be used: a robot's program has no keyboard, use Gamepad"


def _signature(name: str, method: Method) -> str:
    shown = [each if place < method.required else f"[{each}]" for place, each in enumerate(method.params)]
    return f"{name}({', '.join([*shown, *(['...'] if method.rest else [])])})"
