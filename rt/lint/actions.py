"""Checks of actions: that they are started and awaited as they have to be, so that their code runs at all."""

import ast
from collections.abc import Iterator
from functools import lru_cache

from rt.lint.check import CheckContext, Finding, check
from rt.lint.module import UNKNOWN, Function, Scope

_ASYNCIO = frozenset(
    "asyncio." + name
    for name in (
        *(
            "sleep",
            "gather",
            "wait",
            "wait_for",
            "create_task",
            "ensure_future",
            "to_thread",
            "timeout",
            "shield",
        ),
        *("get_event_loop", "get_running_loop", "run"),
    )
)


@check("RT301", "action-not-run", "error")
def action_not_run(context: CheckContext) -> Iterator[Finding]:
    """An action is called as a function, which does not run it."""
    for node, scope in context.module.nodes():
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
            continue
        action = _action(context, scope, node.value.func)
        if action is not None:
            name = ast.unparse(node.value.func)
            beside = f"Actions.run({name}{', ...' if _arity(context, action)[1] else ''})"
            yield (
                node.value,
                f"{name}() alone does not run the action: write `await {name}(...)`, or {beside} to go on at once"
                if scope.is_async
                else f"{name}() does not run the action: write {beside}",
            )


@check("RT302", "action-already-called", "error")
def action_already_called(context: CheckContext) -> Iterator[Finding]:
    """Actions.run is given an action's call instead of the action."""
    for scope, node in _run_arguments(context):
        if isinstance(node, ast.Call):
            action = _action(context, scope, node.func)
            if action is not None:
                rest = ", ..." if node.args or node.keywords else ""
                name = ast.unparse(node.func)
                yield node, f"Actions.run takes the action itself: write Actions.run({name}{rest})"


@check("RT303", "not-an-action", "error")
def not_an_action(context: CheckContext) -> Iterator[Finding]:
    """Actions.run is given something that is no ``async def``."""
    for scope, node in _run_arguments(context):
        function = context.function(scope, node)
        if isinstance(node, ast.Lambda):
            yield node, "Actions.run takes an action, an `async def`, and a lambda is none"
        elif function is not None and not function.decorator_list:
            if isinstance(function, ast.FunctionDef):
                yield (
                    node,
                    f"{function.name} is no action: write it as `async def {function.name}(...)`",
                )
            elif _yields(function):
                yield node, f"{function.name} is no action: it has a `yield`"
        elif context.constant(scope, node) is not UNKNOWN:
            yield node, "Actions.run takes an action, the name of an `async def` without quotes"


@check("RT304", "not-awaited", "error")
def not_awaited(context: CheckContext) -> Iterator[Finding]:
    """Actions.sleep is called without ``await``, so that nothing waits."""
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
    """What is awaited is no action."""
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
                yield node, f"{function.name} cannot be awaited: it is no `async def`"


@check("RT306", "wrong-action-arguments", "error")
def wrong_action_arguments(context: CheckContext) -> Iterator[Finding]:
    """Actions.run is given another number of arguments than the action takes."""
    for call in context.calls:
        if (
            call.name != "run"
            or "action" not in call.arguments
            or not call.certain
            or call.node.keywords
        ):
            continue
        action = _action(context, call.scope, call.arguments["action"])
        given = len(call.node.args) - 1
        if action is not None:
            least, most = _arity(context, action)
            if given < least or (most is not None and given > most):
                takes = (
                    f"{least}"
                    if least == most
                    else f"at least {least}"
                    if most is None
                    else f"{least} to {most}"
                )
                yield (
                    call.node,
                    f"{action.name} takes {takes} arguments, and Actions.run gives it {given}",
                )


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
        if (
            call.owner == "Actions"
            and call.name in {"run", "is_running"}
            and "action" in call.arguments
        ):
            yield call.scope, call.arguments["action"]


def _action(context: CheckContext, scope: Scope, node: ast.AST) -> ast.AsyncFunctionDef | None:
    """The action that an expression certainly is; a decorator may make anything of one."""
    function = context.function(scope, node)
    if (
        isinstance(function, ast.AsyncFunctionDef)
        and not function.decorator_list
        and not _yields(function)
    ):
        return function
    return None


def _arity(context: CheckContext, function: Function) -> tuple[int, int | None]:
    """The least and the most positional arguments of a function, of a method without the instance; None for any number."""
    arguments = function.args
    most = len(arguments.posonlyargs) + len(arguments.args) - context.is_method(function)
    least = most - len(arguments.defaults)
    return least, None if arguments.vararg else most


@lru_cache(1024)
def _yields(function: Function) -> bool:
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(function))


@lru_cache(1024)
def _returns_nothing(function: Function) -> bool:
    """Whether a plain function certainly gives nothing that could be awaited."""
    return not function.decorator_list and not any(
        isinstance(node, ast.Yield | ast.YieldFrom)
        or (isinstance(node, ast.Return) and node.value is not None)
        for node in own_nodes(function)
    )


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body without those of definitions in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)
