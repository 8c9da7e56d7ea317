"""The API of team code as tables for the linter, and the calls of it in a module.

The tables are derived from the signatures in `rt.team.api`, so that the linter need not import the
executor.
"""

import ast
import enum
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from rt.lint.module import Module, Scope, assigned
from rt.team import api as team


class Method(NamedTuple):
    """A method of one of rt's names.

    Attributes:
        params: The names of its arguments.
        required: How many of them are required.
        rest: Whether more arguments may follow.
        is_async: Whether its call must be awaited.
    """

    params: tuple[str, ...] = ()
    required: int = 0
    rest: bool = False
    is_async: bool = False


def method_of(function: Callable[..., Any]) -> Method:
    """Derive a method's description from its signature."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    named = [each for each in parameters if each.kind is not each.VAR_POSITIONAL]
    return Method(
        tuple(each.name for each in named),
        sum(each.default is each.empty for each in named),
        rest=len(named) < len(parameters),
        is_async=inspect.iscoroutinefunction(function),
    )


def _methods(owner: type) -> dict[str, Method]:
    return {
        name: method_of(value)
        for name, value in vars(owner).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


def _values(owner: type) -> tuple[str, ...]:
    if issubclass(owner, enum.Enum):
        return tuple(owner.__members__)
    return tuple(name for name, value in vars(owner).items() if isinstance(value, property))


NAMES = tuple(team.NAMES)
"""The names that the main module finds without an import, besides ``print`` and ``input``."""

METHODS: Mapping[str, Mapping[str, Method]] = MappingProxyType(
    {
        name: _methods(owner)
        for name, owner in team.NAMES.items()
        if not issubclass(owner, enum.Enum)
    }
)
"""The methods of each name."""

VALUES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: values for name, owner in team.NAMES.items() if (values := _values(owner))}
)
"""The attributes of each name that are not methods."""

PREFIXES: Mapping[str, str] = MappingProxyType({"autonomous": "auto", "teleop": "teleop"})
"""Prefixes of the functions of a mode, and the remote method that begins the mode."""

ENTRIES = tuple(f"{prefix}_{part}" for prefix in PREFIXES for part in ("setup", "main"))
"""The functions that the robot calls."""

_MAX_ALIASES = 8


class Call(NamedTuple):
    """A call of a method of one of rt's names.

    Attributes:
        node: The call.
        scope: The scope of the call.
        owner: The name, such as ``Robot``.
        name: The name of the method, which exists.
        method: The method.
        arguments: The argument expressions by parameter, where that is certain.
        certain: Whether these are all, that is, no ``*`` or ``**`` is used.
    """

    node: ast.Call
    scope: Scope
    owner: str
    name: str
    method: Method
    arguments: dict[str, ast.expr]
    certain: bool


def owner_of(module: Module, scope: Scope, node: ast.AST) -> str | None:
    """Return which of rt's names an expression is, also under an alias (``r = Robot``), or None."""
    value, at = _resolve_alias(module, scope, node)
    if (
        isinstance(value, ast.Name)
        and value.id in NAMES
        and module.binding_scope(at, value.id) is None
    ):
        return value.id
    return None


def calls_of(module: Module) -> Iterator[Call]:
    """Yield every call of a method of rt's names, scope by scope in source order."""
    for node, scope in module.nodes():
        if not isinstance(node, ast.Call):
            continue
        func, at = _resolve_alias(module, scope, node.func)
        if isinstance(func, ast.Attribute):
            owner = owner_of(module, at, func.value)
            if owner and func.attr in METHODS.get(owner, {}):
                yield _call(node, scope, owner, func.attr)


def _resolve_alias(module: Module, scope: Scope, node: ast.AST) -> tuple[ast.AST, Scope]:
    """Return the value that a name is assigned once, and its scope; else the node itself."""
    for _ in range(_MAX_ALIASES):
        if not isinstance(node, ast.Name):
            break
        value = assigned(module.binding(scope, node.id))
        if value is None:
            break
        scope, node = module.binding_scope(scope, node.id) or scope, value
    return node, scope


def _call(node: ast.Call, scope: Scope, owner: str, name: str) -> Call:
    method = METHODS[owner][name]
    starred = next(
        (i for i, each in enumerate(node.args) if isinstance(each, ast.Starred)), len(node.args)
    )
    arguments = dict(zip(method.params, node.args[:starred], strict=False))
    arguments |= {each.arg: each.value for each in node.keywords if each.arg in method.params}
    certain = starred == len(node.args) and all(each.arg is not None for each in node.keywords)
    return Call(node, scope, owner, name, method, arguments, certain)
