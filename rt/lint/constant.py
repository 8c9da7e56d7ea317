"""Constants: the values that expressions certainly have, without running the program.

Invariant: the number of steps is bounded for every expression.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from rt.lint.module import UNKNOWN, Module, Scope
from rt.lint.program import Program

_MAX_STEPS: Final = 50
_MAX_NUMBER: Final = 1 << 128
_MAX_CHARACTERS: Final = 200

_SUMS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
    }
)


def constant(
    program: Program, module: Module, scope: Scope, node: ast.AST | None, steps: int = _MAX_STEPS
) -> Any:
    """Return the value that an expression certainly has.

    Follows literals, sums of numbers or strings, and names that are assigned once.

    Args:
        program: Where names of other modules are looked up.
        module: The module of the expression.
        scope: The scope of the expression.
        node: The expression.
        steps: How many steps are left.

    Returns:
        A bool, int, float, str, bytes or None, or ``UNKNOWN``.
    """
    if steps <= 0 or node is None:
        return UNKNOWN
    match node:
        case ast.Constant(value=value):
            return UNKNOWN if value is Ellipsis else value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            return _signed(sign, constant(program, module, scope, operand, steps - 1))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _SUMS:
            sides = (constant(program, module, scope, side, steps // 2) for side in (left, right))
            return _sum(type(op), *sides)
    owner, value_node = program.assigned(module, scope, node)
    return constant(program, owner, owner.scope, value_node, steps - 1)


def _signed(sign: ast.unaryop, value: Any) -> Any:
    if type(value) not in {int, float}:
        return UNKNOWN
    return -value if isinstance(sign, ast.USub) else value


def _sum(kind: type[ast.operator], left: Any, right: Any) -> Any:
    if kind is ast.Add and isinstance(left, str) and isinstance(right, str):
        return left + right if len(left) + len(right) <= _MAX_CHARACTERS else UNKNOWN
    if type(left) not in {int, float} or type(right) not in {int, float}:
        return UNKNOWN
    if abs(left) > _MAX_NUMBER or abs(right) > _MAX_NUMBER:
        return UNKNOWN
    try:
        return _SUMS[kind](left, right)
    except (ArithmeticError, ValueError):
        return UNKNOWN
