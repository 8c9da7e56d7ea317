"""Checks of blocking code in main, which is called periodically, and in actions."""

import ast
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from rt.lint.check import CheckContext, Finding, check
from rt.lint.module import Scope

_EXITS = frozenset({"sys.exit", "os._exit", "os.abort", "exit", "quit"})
_ENDLESS_ITERATORS = frozenset({"itertools.count", "itertools.cycle"})
_POLLED = frozenset({("Robot", "get"), ("Gamepad", "get"), ("Actions", "is_running")})
"""Calls whose result may change while a loop waits for it."""
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@check("RT401", "sleep-in-main", "warning")
def sleep_in_main(context: CheckContext) -> Iterator[Finding]:
    """time.sleep delays main, which must return within its period."""
    for node, scope, entry in _timed_sleeps(context):
        if entry.endswith("_main") and not _too_long(context, node, scope, entry):
            late = f"time.sleep makes {_describe(scope, entry)} late"
            yield node, f"{late}: wait in an action with `await Actions.sleep(...)`"


@check("RT402", "sleep-too-long", "error")
def sleep_too_long(context: CheckContext) -> Iterator[Finding]:
    """time.sleep exceeds the time limit of a setup or main, so the call is interrupted."""
    for node, scope, entry in _timed_sleeps(context):
        if _too_long(context, node, scope, entry):
            limit = context.config.time_limit(entry)
            late = f"time.sleep takes longer than the {limit:g} s of {_describe(scope, entry)}"
            yield node, f"{late}: wait in an action with `await Actions.sleep(...)`"


@check("RT403", "sleep-in-action", "warning")
def sleep_in_action(context: CheckContext) -> Iterator[Finding]:
    """time.sleep in an action blocks every other action, and soon the motors are disabled."""
    for node, scope in _sleeps(context):
        if scope.is_async and not isinstance(context.module.parents.get(node), ast.Await):
            blocks = "time.sleep blocks all actions, and soon the motors are disabled"
            yield node, f"{blocks}: write `await Actions.sleep(...)`"


@check("RT404", "endless-loop", "error")
def endless_loop(context: CheckContext) -> Iterator[Finding]:
    """A loop in main never ends, so main is interrupted in each call."""
    for scope in context.module.scopes:
        entry = context.program.timed.get(scope.node)
        if entry is not None and entry.endswith("_main") and not scope.is_async:
            for loop in _endless(context, scope):
                called = f"{_describe(scope, entry)} is called repeatedly"
                yield loop, f"this loop never ends, but {called}: remove the loop"


@check("RT405", "endless-action", "error")
def endless_action(context: CheckContext) -> Iterator[Finding]:
    """A loop in an action never ends and never awaits, so nothing else runs."""
    for scope in context.module.scopes:
        if scope.is_async:
            for loop in _endless(context, scope):
                message = "this loop never waits, so nothing else runs: "
                yield loop, f"{message}add `await Actions.sleep(...)`"


@check("RT406", "waiting-loop", "warning")
def waiting_loop(context: CheckContext) -> Iterator[Finding]:
    """A loop in a setup, main or action waits for a sensor, a gamepad, the clock or an action."""
    polled = {call.node for call in context.calls if (call.owner, call.name) in _POLLED}
    clocks = {call.node for call in context.calls if (call.owner, call.name) == ("Field", "clock")}
    for scope in context.module.scopes if polled or clocks else ():
        entry = context.program.timed.get(scope.node)
        if not scope.is_async and entry is None:
            continue
        for loop in scope.nodes:
            if not isinstance(loop, ast.While):
                continue
            if not _waits(context, loop, polled) and not _waits_long(
                context, scope, entry, loop, clocks
            ):
                continue
            if entry is None or scope.is_async:
                if not _is_left(context, scope, loop):
                    message = "this loop blocks everything else: add `await Actions.sleep(...)`"
                    yield loop, message
            else:
                limit = context.config.time_limit(entry)
                shown = f" after {limit:g} s" if limit is not None else ""
                where = "each call" if entry.endswith("_main") else "main"
                waiter = f"this loop waits, but {_describe(scope, entry)} is interrupted{shown}"
                way = f"check in {where} with `if`"
                yield loop, f"{waiter}: {way}, or wait in an action with `await Actions.sleep(...)`"


def _waits(context: CheckContext, loop: ast.While, polled: AbstractSet[ast.AST]) -> bool:
    """Return whether a loop ends only when a polled value changes."""
    if any(each in polled for each in ast.walk(loop.test)):
        # Another condition may end it in time.
        return not (isinstance(loop.test, ast.BoolOp) and isinstance(loop.test.op, ast.And))
    if not isinstance(loop.test, ast.Constant) or not loop.test.value:
        return False
    exits = [
        node for node in ast.walk(loop) if isinstance(node, ast.Break | ast.Return | ast.Raise)
    ]
    return bool(exits) and all(_is_polled(context, node, loop, polled) for node in exits)


def _waits_long(
    context: CheckContext,
    scope: Scope,
    entry: str | None,
    loop: ast.While,
    clocks: AbstractSet[ast.AST],
) -> bool:
    """Return whether a loop waits for the clock for longer than its function may take."""
    match loop.test:
        case ast.Compare(ops=[ast.Lt() | ast.LtE()], left=left, comparators=[end]):
            seconds = context.constant(scope, end)
            limit = 0.0 if entry is None else context.config.time_limit(entry)
            is_long = limit is not None and isinstance(seconds, int | float) and seconds > limit
            return is_long and any(each in clocks for each in ast.walk(left))
    return False


def _is_polled(
    context: CheckContext, node: ast.AST, loop: ast.While, polled: AbstractSet[ast.AST]
) -> bool:
    """Return whether an exit of a loop depends on a polled value."""
    around = context.module.parents.get(node)
    while around is not None and around is not loop:
        if isinstance(around, ast.If) and any(each in polled for each in ast.walk(around.test)):
            return True
        around = context.module.parents.get(around)
    return False


def _sleeps(context: CheckContext) -> Iterator[tuple[ast.Call, Scope]]:
    for node, scope in context.module.nodes():
        if isinstance(node, ast.Call) and context.module.origin(scope, node.func) == "time.sleep":
            yield node, scope


def _timed_sleeps(context: CheckContext) -> Iterator[tuple[ast.Call, Scope, str]]:
    """Yield the sleeps in a setup or main, or in a function that it calls, with its name."""
    for node, scope in _sleeps(context):
        entry = context.program.timed.get(scope.node)
        if entry is not None:
            yield node, scope, entry


def _too_long(context: CheckContext, node: ast.Call, scope: Scope, entry: str) -> bool:
    limit = context.config.time_limit(entry)
    seconds = context.constant(scope, node.args[0]) if len(node.args) == 1 else None
    return limit is not None and isinstance(seconds, int | float) and seconds >= limit


def _describe(scope: Scope, entry: str) -> str:
    return entry if scope.name == entry else f"{entry} (which calls {scope.name})"


def _endless(context: CheckContext, scope: Scope) -> Iterator[ast.AST]:
    """Yield the outermost loops of a function that are never left."""
    inside: set[ast.AST] = set()
    for node in scope.nodes:
        around = context.module.parents.get(node)
        if around in inside:
            inside.add(node)
        elif (
            _is_endless(context, scope, node)
            and not _is_left(context, scope, node)
            and not _is_tried(context, node)
        ):
            inside.add(node)
            yield node


def _is_endless(context: CheckContext, scope: Scope, node: ast.AST) -> bool:
    match node:
        case ast.While(test=ast.Constant(value=value)):
            return bool(value)
        case ast.For(iter=ast.Call(func=func)):
            return context.module.origin(scope, func) in _ENDLESS_ITERATORS
    return False


def _is_left(context: CheckContext, scope: Scope, loop: ast.AST) -> bool:
    """Return whether anything in a loop may end it or, in an action, waits in it."""
    # A `break` in the body of an inner loop ends only that loop; one in its `else` ends this one.
    assert isinstance(loop, ast.While | ast.For)
    todo: list[tuple[ast.AST, bool]] = [(child, True) for child in loop.body]
    while todo:
        node, breaks = todo.pop()
        match node:
            case ast.Return() | ast.Raise() | ast.Yield() | ast.YieldFrom():
                return True
            case ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                return True
            case ast.Break() if breaks:
                return True
            case ast.Call(func=func) if _ends(context, scope, func):
                return True
            case ast.While() | ast.For():
                own = set(node.body)
                todo += [
                    (child, breaks and child not in own) for child in ast.iter_child_nodes(node)
                ]
            case _ if not isinstance(node, _DEFINITIONS):
                todo += [(child, breaks) for child in ast.iter_child_nodes(node)]
    return False


def _is_tried(context: CheckContext, loop: ast.AST) -> bool:
    """Return whether an exception may end a loop, because an enclosing `try` catches some.

    An example is a loop that ``queue.Empty`` ends.
    """
    node, around = loop, context.module.parents.get(loop)
    while around is not None and not isinstance(around, _DEFINITIONS):
        if isinstance(around, ast.Try | ast.TryStar) and around.handlers and node in around.body:
            return True
        node, around = around, context.module.parents.get(around)
    return False


def _ends(context: CheckContext, scope: Scope, func: ast.expr) -> bool:
    name = context.module.origin(scope, func)
    if (
        not name
        and isinstance(func, ast.Name)
        and context.module.binding_scope(scope, func.id) is None
    ):
        name = func.id
    return name in _EXITS or name.startswith("os.exec")
