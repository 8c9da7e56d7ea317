"""Checks of rt's names: that their attributes exist and are called with valid arguments."""

import ast
import sys
from collections.abc import Iterator

from rt.lint.api import METHODS, NAMES, VALUES, Method, owner_of
from rt.lint.check import CheckContext, Finding, check
from rt.lint.program import files_of
from rt.text import nearest

_OTHER_NAMES = {"get_value": "get", "set_value": "write", "set": "write", "read": "get"}
"""The names of methods in other robots' programs."""

_BY_LOWER_CASE = {name.lower(): name for name in NAMES}


@check("RT101", "unknown-method", "error")
def unknown_method(context: CheckContext) -> Iterator[Finding]:
    """One of rt's names has no such attribute."""
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
    """A method of rt's names gets too few, too many or unknown arguments."""
    for call in context.calls:
        method, given = call.method, f"{call.owner}.{call.name}"
        for keyword in call.node.keywords:
            if keyword.arg is not None and keyword.arg not in method.params:
                hint = nearest(keyword.arg, method.params) or f": write {_signature(given, method)}"
                yield call.node, f"{given} has no argument {keyword.arg}{hint}"
                break
            if keyword.arg in method.params[: len(call.node.args)] and call.certain:
                yield call.node, f"{given} gets {keyword.arg} twice"
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
    """``input`` is called, but the robot has no keyboard."""
    for node, scope in context.module.nodes():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "input"
            and context.module.binding_scope(scope, "input") is None
        ):
            yield node, "input() cannot be used: the robot has no keyboard; use Gamepad instead"


@check("RT104", "method-not-called", "error")
def method_not_called(context: CheckContext) -> Iterator[Finding]:
    """A method of rt's names is used without a call where only its call makes sense."""
    for node, scope in context.module.nodes():
        if isinstance(node, ast.Attribute) and _is_used_as_value(
            context.module.parents.get(node), node
        ):
            owner = owner_of(context.module, scope, node.value)
            method = METHODS.get(owner, {}).get(node.attr) if owner else None
            if method:
                name = f"{owner}.{node.attr}"
                yield node, f"{name} is not called: write {_signature(name, method)}"


@check("RT105", "compared-with-text", "error")
def compared_with_text(context: CheckContext) -> Iterator[Finding]:
    """Field.mode or Field.alliance is compared with a string, which is never equal."""
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
                    remedies = {
                        "alliance": "compare it with Alliance.BLUE or Alliance.GOLD",
                        "mode": "compare `Field.mode.name`",
                    }
                    if each.attr in remedies:
                        yield node, f"Field.{each.attr} is not a string: {remedies[each.attr]}"


@check("RT106", "not-installed", "warning")
def not_installed(context: CheckContext) -> Iterator[Finding]:
    """An imported module is neither in the folder of team code nor installed on this computer."""
    for node in _required_imports(context):
        if given_names(context, node):
            continue  # another check reports it
        for top in _top_packages(node):
            if not _is_found(context, top):
                yield node, f"no module {top} in this folder, nor installed on this computer"


@check("RT107", "import-of-given-name", "error")
def import_of_given_name(context: CheckContext) -> Iterator[Finding]:
    """One of rt's names is imported, as in other robots' programs; no import is needed."""
    for node in _required_imports(context):
        if names := given_names(context, node):
            verb = "is" if len(names) == 1 else "are"
            where = (
                "delete this line"
                if context.is_main
                else "only the main module has it; pass it as an argument"
            )
            yield node, f"{' and '.join(names)} {verb} available without an import: {where}"


def given_names(context: CheckContext, node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the names of rt that an import asks of a module that does not exist."""
    if isinstance(node, ast.ImportFrom) and node.module == "rt" and not node.level:
        return [alias.name for alias in node.names if alias.name in NAMES]
    return [
        _BY_LOWER_CASE[top.lower()]
        for top in _top_packages(node)
        if top.lower() in _BY_LOWER_CASE and not _is_found(context, top)
    ]


def _required_imports(context: CheckContext) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that are not tried."""
    for node, _ in context.module.nodes():
        if isinstance(node, ast.Import | ast.ImportFrom) and not isinstance(
            context.module.parents.get(node), ast.Try
        ):
            yield node


def _top_packages(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the outermost packages of an absolute import."""
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [] if node.level or node.module is None else [node.module]
    return list(dict.fromkeys(name.partition(".")[0] for name in names))


def _is_found(context: CheckContext, top: str) -> bool:
    """Return whether a module can be imported, as far as that is known without importing it."""
    folder = context.program.folder
    if top in sys.stdlib_module_names or any(files_of(top, folder)) or (folder / top).is_dir():
        return True
    # Not importlib.util.find_spec, which also finds modules that only this process has loaded.
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
    """Return what to write for an unknown attribute, as the rest of a message."""
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
