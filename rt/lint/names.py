"""Checks of rt's names: that what is called is there, and takes what it is given."""

import ast
import sys
from collections.abc import Iterator

from rt.config import nearest
from rt.lint.api import METHODS, NAMES, VALUES, Method, owner_of
from rt.lint.check import CheckContext, Finding, check
from rt.lint.files import files_of

_OTHER_NAMES = {"get_value": "get", "set_value": "write", "set": "write", "read": "get"}
"""What methods are called in other robots' programs."""

_BY_LOWER_CASE = {name.lower(): name for name in NAMES}


@check("RT101", "unknown-method", "error")
def unknown_method(context: CheckContext) -> Iterator[Finding]:
    """One of rt's names is asked for something that it does not have."""
    for node, scope in context.module.nodes():
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
            continue
        owner = owner_of(context.module, scope, node.value)
        if owner is None or node.attr.startswith("_"):
            continue
        there = (*METHODS.get(owner, {}), *VALUES.get(owner, ()))
        # Alliance is an enumeration, which has more than its members.
        if node.attr in there or (
            owner == "Alliance" and node.attr.upper() not in there and not node.attr.isupper()
        ):
            continue
        yield node, f"{owner} has no {node.attr}{_suggestion(owner, node.attr, there)}"


@check("RT102", "wrong-arguments", "error")
def wrong_arguments(context: CheckContext) -> Iterator[Finding]:
    """A method of rt's is called with too few or too many arguments, or with one that it does not have."""
    for call in context.calls:
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
            missing = [
                name for name in method.params[: method.required] if name not in call.arguments
            ]
            if len(positional) > len(method.params) and not method.rest:
                yield (
                    call.node,
                    f"{_signature(given, method)} is called with {len(positional)} arguments",
                )
            elif missing and call.certain:
                yield (
                    call.node,
                    f"{_signature(given, method)} is called without {' and '.join(missing)}",
                )


@check("RT103", "input-call", "error")
def input_call(context: CheckContext) -> Iterator[Finding]:
    """``input`` is called, but a robot's program has no keyboard."""
    for node, scope in context.module.nodes():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "input"
            and context.module.binding_scope(scope, "input") is None
        ):
            yield node, "input() cannot be used: a robot's program has no keyboard, use Gamepad"


@check("RT104", "method-not-called", "error")
def method_not_called(context: CheckContext) -> Iterator[Finding]:
    """A method of rt's is named where only its call makes sense."""
    for node, scope in context.module.nodes():
        if isinstance(node, ast.Attribute) and _is_used_as_value(
            context.module.parents.get(node), node
        ):
            owner = owner_of(context.module, scope, node.value)
            method = METHODS.get(owner, {}).get(node.attr) if owner else None
            if method:
                yield (
                    node,
                    f"{owner}.{node.attr} is not called: write {_signature(f'{owner}.{node.attr}', method)}",
                )


@check("RT105", "compared-with-text", "error")
def compared_with_text(context: CheckContext) -> Iterator[Finding]:
    """Field.mode or Field.alliance is compared with a text, which neither is ever equal to."""
    for node, scope in context.module.nodes():
        if not isinstance(node, ast.Compare) or not all(
            isinstance(op, ast.Eq | ast.NotEq) for op in node.ops
        ):
            continue
        sides = [node.left, *node.comparators]
        if any(context.text(scope, each) is not None for each in sides):
            for each in sides:
                if (
                    isinstance(each, ast.Attribute)
                    and owner_of(context.module, scope, each.value) == "Field"
                ):
                    instead = {
                        "alliance": "Alliance.BLUE or Alliance.GOLD",
                        "mode": "a text by `Field.mode.name`",
                    }
                    if each.attr in instead:
                        yield (
                            node,
                            f"Field.{each.attr} is no text: compare it with {instead[each.attr]}",
                        )


@check("RT106", "not-installed", "warning")
def not_installed(context: CheckContext) -> Iterator[Finding]:
    """A module is imported that neither is in the team's directory nor is installed on this computer."""
    for node, _ in context.module.nodes():
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        else:
            continue
        if not isinstance(context.module.parents.get(node), ast.Try):
            if given_names(context, node):
                continue  # which another check tells
            for top in dict.fromkeys(name.partition(".")[0] for name in names):
                if not _is_found(context, top):
                    yield (
                        node,
                        f"there is no module {top} here, and it is not installed on this computer",
                    )


@check("RT107", "import-of-given-name", "error")
def import_of_given_name(context: CheckContext) -> Iterator[Finding]:
    """One of rt's names is imported, as in other robots' programs, but is there without an import."""
    for node, _ in context.module.nodes():
        names = (
            []
            if isinstance(context.module.parents.get(node), ast.Try)
            else given_names(context, node)
        )
        if names:
            verb = "is" if len(names) == 1 else "are"
            where = (
                "delete this line"
                if context.is_main
                else "the main module has it; hand it over as an argument"
            )
            yield node, f"{' and '.join(names)} {verb} there without an import: {where}"


def given_names(context: CheckContext, node: ast.AST) -> list[str]:
    """Those of rt's names that an import asks for, of a module that there is not."""
    match node:
        case ast.Import():
            tops = [alias.name.partition(".")[0] for alias in node.names]
        case ast.ImportFrom(module="rt", level=0):
            return [alias.name for alias in node.names if alias.name in NAMES]
        case ast.ImportFrom(module=str(module), level=0):
            tops = [module.partition(".")[0]]
        case _:
            return []
    return [
        _BY_LOWER_CASE[top.lower()]
        for top in tops
        if top.lower() in _BY_LOWER_CASE and not _is_found(context, top)
    ]


def _is_found(context: CheckContext, top: str) -> bool:
    """Whether a module can be imported, as far as that can be told without importing it."""
    folder = context.program.folder
    if top in sys.stdlib_module_names or any(files_of(top, folder)) or (folder / top).is_dir():
        return True
    # Not importlib.util.find_spec, which also finds what this process happens to have loaded under
    # that name.
    return any(binding_scope.find_spec(top, None) is not None for binding_scope in sys.meta_path)


def _is_used_as_value(around: ast.AST | None, node: ast.Attribute) -> bool:
    match around:
        case ast.Compare(ops=ops):
            return not any(isinstance(op, ast.Is | ast.IsNot | ast.In | ast.NotIn) for op in ops)
        case ast.Expr() | ast.BinOp() | ast.BoolOp() | ast.UnaryOp() | ast.FormattedValue():
            return True
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            return test is node
    return False


def _suggestion(owner: str, name: str, there: tuple[str, ...]) -> str:
    """What to write for a name that is not there, as the rest of a sentence."""
    older = _OTHER_NAMES.get(name)
    if older in there:
        return f": write {_signature(f'{owner}.{older}', METHODS[owner][older])}"
    others = [each for each in METHODS if name in METHODS[each]]
    if others:
        return f": write {_signature(f'{others[0]}.{name}', METHODS[others[0]][name])}"
    return nearest(name, there) or f"; it has {', '.join(there)}"


def _signature(name: str, method: Method) -> str:
    name = f"await {name}" if method.is_async else name
    shown = [
        each if place < method.required else f"[{each}]" for place, each in enumerate(method.params)
    ]
    return f"{name}({', '.join([*shown, *(['...'] if method.rest else [])])})"
