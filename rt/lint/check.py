"""rt's own checks: how one is declared, and how all are run over a program.

A check is a small function that yields a node and a sentence for each fault. It looks only, and
what it cannot tell for certain it does not say. A check that crashes becomes a record and never
ends the rest.
"""

import ast
import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from rt.catalog import Catalog
from rt.lint.api import Call, calls_of
from rt.lint.constant import constant
from rt.lint.module import UNKNOWN, Function, Module, Scope
from rt.lint.program import Program
from rt.lint.record import MAX_FINDINGS, Record, record
from rt.lint.request import LintRequest

_CHECK_MODULES = ("names", "devices", "actions", "timing", "entry")

Finding = tuple[ast.AST, str]
"""Where, and what is wrong there."""


class Check(NamedTuple):
    """A declared check.

    Attributes:
        id: Its stable number.
        symbol: Its stable name.
        type: "error" or "warning".
        meaning: What it finds, one line.
        function: What looks.
    """

    id: str
    symbol: str
    type: Literal["error", "warning"]
    meaning: str
    function: "Callable[[CheckContext], Iterator[Finding]]"


class CheckContext:
    """One module of a program, and what there is to check it against.

    Args:
        program: All modules.
        module: The one that is looked at.
        request: Names and time limits.
        catalog: What devices there are.
    """

    def __init__(
        self, program: Program, module: Module, request: LintRequest, catalog: Catalog
    ) -> None:
        self.program = program
        self.module = module
        self.request = request
        self.catalog = catalog
        self.names = {name: int(uid) for name, uid in request.dev_name.items()}

    @property
    def is_main(self) -> bool:
        """Whether it is the module that the robot runs."""
        return self.module is self.program.main

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """Every call of a method of rt's names."""
        return tuple(calls_of(self.module))

    def constant(self, scope: Scope, node: ast.AST | None) -> Any:
        """What an expression certainly is, or ``UNKNOWN``."""
        return constant(self.program, self.module, scope, node)

    def text(self, scope: Scope, node: ast.AST | None) -> str | None:
        """The text that an expression certainly is, or None."""
        value = self.constant(scope, node) if node is not None else UNKNOWN
        return value if isinstance(value, str) else None

    def function(self, scope: Scope, node: ast.AST) -> Function | None:
        """The function that an expression certainly is, of any module of the program, or None."""
        found = self.program.function(self.module, scope, node)
        return found[1] if found else None

    def is_method(self, function: Function) -> bool:
        """Whether a function of the program is written in a class, so that its first argument is the instance."""
        return function in self.program.methods


_registered: dict[str, Check] = {}


def check(
    number: str, symbol: str, type_: Literal["error", "warning"]
) -> Callable[
    [Callable[[CheckContext], Iterator[Finding]]], Callable[[CheckContext], Iterator[Finding]]
]:
    """Declare a check under a number and a name that stay; the first line of its documentation is what it finds.

    Raises:
        ValueError: The number or the name is taken.
    """

    def register(
        function: Callable[[CheckContext], Iterator[Finding]],
    ) -> Callable[[CheckContext], Iterator[Finding]]:
        if number in _registered or symbol in {each.symbol for each in _registered.values()}:
            raise ValueError(f"there is a check {number} or {symbol} already")
        meaning = (function.__doc__ or "").partition("\n")[0]
        _registered[number] = Check(number, symbol, type_, meaning, function)
        return function

    return register


def checks() -> Mapping[str, Check]:
    """Every check by its number."""
    for name in _CHECK_MODULES:
        importlib.import_module(f"rt.lint.{name}")
    return MappingProxyType(dict(sorted(_registered.items())))


def run(context: CheckContext) -> Iterator[Record]:
    """Run all checks over a module."""
    for each in checks().values():
        try:
            for number, (node, sentence) in enumerate(each.function(context)):
                if number >= MAX_FINDINGS:
                    break
                yield _record(context.module, each, node, sentence)
        except Exception as error:  # noqa: BLE001 - a fault of ours in one check is told, and the others run
            yield record(
                "fatal",
                context.module.source.path,
                "check-failed",
                "RT906",
                f"the check {each.symbol} failed, which is a fault of rt: {type(error).__name__}: {error}",
                module=context.module.name,
            )


def _record(module: Module, found: Check, node: ast.AST, sentence: str) -> Record:
    line = getattr(node, "lineno", 1)
    scope = module.inner[node] if isinstance(node, Function) else module.scope_of(node)
    return record(
        found.type,
        module.source.path,
        found.symbol,
        found.id,
        sentence,
        module=module.name,
        obj=scope.name,
        line=line,
        column=module.source.column(line, getattr(node, "col_offset", 0)),
    )
