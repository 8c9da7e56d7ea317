"""rt's own checks: how they are declared, and how all are run on a program.

A check is a function that yields a node and a message for each finding. It reports only what is
certain. A check that crashes becomes a record and does not stop the others.
"""

import ast
import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from rt.catalog import Catalog
from rt.config import Config
from rt.lint.api import Call, calls_of
from rt.lint.constant import constant
from rt.lint.module import Function, Module, Scope
from rt.lint.program import Program
from rt.lint.record import MAX_FINDINGS, Record

_CHECK_MODULES = ("names", "devices", "actions", "timing", "entry_functions")

Finding = tuple[ast.AST, str]
"""The node that is wrong, and the message."""


class Check(NamedTuple):
    """A declared check.

    Attributes:
        id: Its stable number.
        symbol: Its stable name.
        type: "error" or "warning".
        meaning: What it finds, in one line.
        function: Yields the findings.
    """

    id: str
    symbol: str
    type: Literal["error", "warning"]
    meaning: str
    function: "_Function"


class CheckContext:
    """A module of a program, and the configuration that it is checked against.

    Args:
        program: All modules.
        module: The module to check.
        config: Device names and time limits.
        catalog: The known device types.
    """

    def __init__(self, program: Program, module: Module, config: Config, catalog: Catalog) -> None:
        self.program = program
        self.module = module
        self.config = config
        self.catalog = catalog
        self.names = {name: int(uid) for name, uid in config.dev_name.items()}

    @property
    def is_main(self) -> bool:
        """Whether it is the main module, which the robot runs."""
        return self.module is self.program.main

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """Every call of a method of rt's names."""
        return tuple(calls_of(self.module))

    def constant(self, scope: Scope, node: ast.AST | None) -> Any:
        """Return the value that an expression certainly has, or ``UNKNOWN``."""
        return constant(self.program, self.module, scope, node)

    def text(self, scope: Scope, node: ast.AST | None) -> str | None:
        """Return the string that an expression certainly is, or None."""
        value = self.constant(scope, node)
        return value if isinstance(value, str) else None

    def function(self, scope: Scope, node: ast.AST) -> Function | None:
        """Return the function of the program that an expression certainly is, or None."""
        found = self.program.function(self.module, scope, node)
        return found[1] if found else None

    def is_method(self, function: Function) -> bool:
        """Return whether a function is a method, so that its first argument is the instance."""
        return function in self.program.methods


_Function = Callable[[CheckContext], Iterator[Finding]]
_registered: dict[str, Check] = {}


def check(
    number: str, symbol: str, type_: Literal["error", "warning"]
) -> Callable[[_Function], _Function]:
    """Declare a check with its stable number and name; the docstring's first line is its meaning.

    Raises:
        ValueError: The number or the name is already in use.
    """

    def register(function: _Function) -> _Function:
        if number in _registered or symbol in {each.symbol for each in _registered.values()}:
            raise ValueError(f"check {number} or {symbol} already exists")
        meaning = (function.__doc__ or "").partition("\n")[0]
        _registered[number] = Check(number, symbol, type_, meaning, function)
        return function

    return register


def checks() -> Mapping[str, Check]:
    """Return every check by its number."""
    for name in _CHECK_MODULES:
        importlib.import_module(f"rt.lint.{name}")
    return MappingProxyType(dict(sorted(_registered.items())))


def run(context: CheckContext) -> Iterator[Record]:
    """Run all checks on a module."""
    for each in checks().values():
        found = (
            _record(context.module, each, *finding)
            for finding in itertools.islice(each.function(context), MAX_FINDINGS)
        )
        yield from guarded(context.module, f"bug in rt: check {each.symbol}", found)


def guarded(module: Module, name: str, found: Iterable[Record]) -> Iterator[Record]:
    """Yield records; a bug in what finds them is a record too and stops nothing else."""
    try:
        yield from found
    except Exception as error:  # noqa: BLE001 - any bug
        message = f"{name} failed: {type(error).__name__}: {error}"
        yield module.source.record("fatal", "check-failed", "RT906", message)


def _record(module: Module, found: Check, node: ast.AST, message: str) -> Record:
    scope = module.inner[node] if isinstance(node, Function) else module.scope_of(node)
    return module.source.record(
        found.type,
        found.symbol,
        found.id,
        message,
        obj=scope.name,
        line=getattr(node, "lineno", 1),
        offset=getattr(node, "col_offset", 0),
    )
