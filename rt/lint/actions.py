"""Checks of actions: that they are started and awaited correctly."""

import ast
from collections.abc import Iterator
from functools import lru_cache

from rt.lint.check import CheckContext, Finding, check
from rt.lint.module import UNKNOWN, Function, Scope

_ASYNCIO = frozenset(
    "asyncio." + name
    for name in (
        *("sleep", "gather", "wait", "wait_for", "create_task", "ensure_future"),
        *("to_thread", "timeout", "shield", "get_event_loop", "get_running_loop", "run"),
    )
)


@check("RT301", "action-not-run", "error")
def action_not_run(context: CheckContext) -> Iterator[Finding]:
    """An action is called like a function, which does not run it."""
    for node, scope in context.module.nodes():
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
            continue
        action = _action(context, scope, node.value.func)
        if action is not None:
            name = ast.unparse(node.value.func)
            start = f"Actions.run({name}{', ...' if _arity(context, action)[1] else ''})"
            yield (
                node.value,
                f"{name}() alone does not run the action: write `await {name}(...)`, or {start}"
                " to continue at once"
                if scope.is_async
                else f"{name}() does not run the action: write {start}",
            )


@check("RT302", "action-already-called", "error")
def action_already_called(context: CheckContext) -> Iterator[Finding]:
    """Actions.run gets the call of an action instead of the action."""
    for scope, node in _run_arguments(context):
        if isinstance(node, ast.Call):
            action = _action(context, scope, node.func)
            if action is not None:
                rest = ", ..." if node.args or node.keywords else ""
                name = ast.unparse(node.func)
                yield node, f"Actions.run takes the action itself: write Actions.run({name}{rest})"


@check("RT303", "not-an-action", "error")
def not_an_action(context: CheckContext) -> Iterator[Finding]:
    """Actions.run gets something that is not an ``async def``."""
    for scope, node in _run_arguments(context):
        function = context.function(scope, node)
        if isinstance(node, ast.Lambda):
            yield node, "Actions.run takes an action, an `async def`, not a lambda"
        elif function is not None and not function.decorator_list:
            if isinstance(function, ast.FunctionDef):
                yield (
                    node,
                    f"{function.name} is not an action: write `async def {function.name}(...)`",
                )
            elif is_generator(function):
                yield node, f"{function.name} is not an action: it has a `yield`"
        elif context.constant(scope, node) is not UNKNOWN:
            yield node, "Actions.run takes an action, the name of an `async def` without quotes"


@check("RT304", "not-awaited", "error")
def not_awaited(context: CheckContext) -> Iterator[Finding]:
    """Actions.sleep is called without ``await`` and therefore does not wait."""
    for call in context.calls:
        if call.method.is_async and isinstance(context.module.parents.get(call.node), ast.Expr):
            name = f"{call.owner}.{call.name}"
            if call.scope.is_async:
                yield call.node, f"{name} does not wait: write `await {name}(...)`"
            else:
                yield (
                    call.node,
                    f"{name} does not wait here: it can only be awaited in an action (`async def`)",
                )


@check("RT305", "nothing-to-await", "error")
def nothing_to_await(context: CheckContext) -> Iterator[Finding]:
    """The awaited expression is not an action."""
    synchronous = {
        call.node: f"{call.owner}.{call.name}" for call in context.calls if not call.method.is_async
    }
    for node, scope in context.module.nodes():
        if not isinstance(node, ast.Await) or not isinstance(node.value, ast.Call):
            continue
        name = synchronous.get(node.value, "")
        if context.module.origin(scope, node.value.func) == "time.sleep":
            yield node, "time.sleep cannot be awaited: write `await Actions.sleep(...)`"
        elif name:
            yield node, f"{name} cannot be awaited: it returns at once"
        else:
            function = context.function(scope, node.value.func)
            if isinstance(function, ast.FunctionDef) and _returns_nothing(function):
                yield node, f"{function.name} cannot be awaited: it is not an `async def`"


@check("RT306", "wrong-action-arguments", "error")
def wrong_action_arguments(context: CheckContext) -> Iterator[Finding]:
    """Actions.run gets a different number of arguments than the action takes."""
    for call in context.calls:
        if call.name != "run" or not call.certain or call.node.keywords or not call.node.args:
            continue
        action = _action(context, call.scope, call.node.args[0])
        given = len(call.node.args) - 1
        if action is not None:
            least, most = _arity(context, action)
            if given < least or (most is not None and given > most):
                takes = f"at least {least}" if most is None else f"{least} to {most}"
                takes = f"{least}" if least == most else takes
                message = f"{action.name} takes {takes} arguments, but Actions.run passes {given}"
                yield call.node, message


@check("RT307", "asyncio-in-action", "error")
def asyncio_in_action(context: CheckContext) -> Iterator[Finding]:
    """An action uses asyncio, but actions run on trio."""
    for node, scope in context.module.nodes():
        if isinstance(node, ast.Call) and scope.is_async:
            origin = context.module.origin(scope, node.func)
            if origin in _ASYNCIO:
                instead = "Actions.sleep" if origin == "asyncio.sleep" else "Actions.run, or trio"
                yield node, f"{origin} fails in an action, which runs on trio: use {instead}"


def _run_arguments(context: CheckContext) -> Iterator[tuple[Scope, ast.expr]]:
    for call in context.calls:
        if "action" in call.arguments:
            yield call.scope, call.arguments["action"]


def _action(context: CheckContext, scope: Scope, node: ast.AST) -> ast.AsyncFunctionDef | None:
    """Return the action that an expression certainly is; a decorated function may be anything."""
    function = context.function(scope, node)
    if (
        isinstance(function, ast.AsyncFunctionDef)
        and not function.decorator_list
        and not is_generator(function)
    ):
        return function
    return None


def _arity(context: CheckContext, function: Function) -> tuple[int, int | None]:
    """Return the minimum and maximum number of positional arguments; None if there is no maximum.

    The instance of a method does not count.
    """
    arguments = function.args
    most = len(arguments.posonlyargs) + len(arguments.args) - context.is_method(function)
    least = most - len(arguments.defaults)
    return least, None if arguments.vararg else most


@lru_cache(1024)
def is_generator(function: Function) -> bool:
    """Return whether a function has a ``yield`` of its own."""
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _own_nodes(function))


@lru_cache(1024)
def _returns_nothing(function: Function) -> bool:
    """Return whether a plain function certainly returns nothing that could be awaited."""
    return not (function.decorator_list or is_generator(function)) and not any(
        isinstance(node, ast.Return) and node.value is not None for node in _own_nodes(function)
    )


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body, without those of definitions in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)
