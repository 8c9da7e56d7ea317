"""Checks of the four functions that the robot calls: that they exist and can be called."""

import ast
from collections.abc import Iterator

from rt.lint.actions import is_generator
from rt.lint.api import ENTRIES, PREFIXES
from rt.lint.check import CheckContext, Finding, check
from rt.lint.module import Function
from rt.text import closest

_SIMILAR = 0.85


@check("RT501", "missing-main", "warning")
def missing_main(context: CheckContext) -> Iterator[Finding]:
    """A mode has a setup but no main, or the program has no function that the robot calls."""
    if not context.is_main or not _is_certain(context):
        return
    bound = context.module.scope.bindings
    misspelt = {wanted for wanted, _ in _misspelt(context)}
    # A setup that starts actions may need no main.
    timed = context.program.timed
    starters = {timed.get(call.scope.node) for call in context.calls if call.name == "run"}
    for prefix, call in PREFIXES.items():
        setup, main = f"{prefix}_setup", f"{prefix}_main"
        if setup in bound and main not in bound and main not in misspelt and setup not in starters:
            yield (
                bound[setup][-1],
                f"`rt call {call}` does nothing after {setup}: add `def {main}():`",
            )
    if (
        not misspelt
        and context.program.is_robot_program
        and not any(name in bound for name in ENTRIES)
    ):
        message = (
            "the robot has nothing to do: add `def teleop_main():` or `def autonomous_main():`"
        )
        yield context.module.source.tree, message


@check("RT502", "async-entry", "error")
def async_entry(context: CheckContext) -> Iterator[Finding]:
    """A setup or main is an ``async def``, which the robot refuses."""
    for function in _entries(context):
        if isinstance(function, ast.AsyncFunctionDef):
            yield (
                function,
                f"{function.name} must be a plain function: write `def {function.name}():`",
            )


@check("RT503", "entry-with-arguments", "error")
def entry_with_arguments(context: CheckContext) -> Iterator[Finding]:
    """A setup or main requires arguments, but the robot passes none."""
    for function in _entries(context):
        arguments = function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        required = positional[: len(positional) - len(arguments.defaults)]
        required += [
            each
            for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if default is None
        ]
        if required:
            names = ", ".join(each.arg for each in required)
            yield function, f"{function.name} is called without arguments: remove {names}"


@check("RT504", "entry-is-generator", "error")
def entry_is_generator(context: CheckContext) -> Iterator[Finding]:
    """A setup or main has a ``yield``, so that calling it runs none of it."""
    for function in _entries(context):
        if is_generator(function):
            yield (
                function,
                f"calling {function.name} runs nothing, because it has a `yield`: remove that",
            )


@check("RT505", "misspelt-entry", "warning")
def misspelt_entry(context: CheckContext) -> Iterator[Finding]:
    """A function has nearly the name of a missing function that the robot calls."""
    if context.is_main and _is_certain(context):
        for wanted, function in _misspelt(context):
            yield function, f"the robot does not call {function.name}; did you mean {wanted}?"


def _is_certain(context: CheckContext) -> bool:
    return "*" not in context.module.scope.bindings


def _entries(context: CheckContext) -> Iterator[Function]:
    if not context.is_main:
        return
    for name in ENTRIES:
        nodes = context.module.scope.bindings.get(name, [])
        if nodes and isinstance(nodes[-1], Function) and not nodes[-1].decorator_list:
            yield nodes[-1]


def _misspelt(context: CheckContext) -> Iterator[tuple[str, Function]]:
    bound = context.module.scope.bindings
    missing = [name for name in ENTRIES if name not in bound]
    for name, nodes in bound.items():
        # A function that the program itself uses is not meant for the robot.
        if (
            name not in ENTRIES
            and name not in context.module.names_read
            and isinstance(nodes[-1], ast.FunctionDef)
        ):
            wanted = name.lower().replace("auto_", "autonomous_")
            near = closest(wanted, missing, cutoff=_SIMILAR)
            # teleop_main2 is not a misspelling of teleop_main.
            if near is not None and not name.startswith(near):
                missing.remove(near)
                yield near, nodes[-1]
