"""Runs pyflakes on a module and converts its messages to records."""

import ast
import contextlib
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from pyflakes import messages
from pyflakes.checker import Checker

from rt.lint import wording
from rt.lint.api import ENTRIES, NAMES
from rt.lint.check import CheckContext
from rt.lint.module import Module
from rt.lint.names import given_names
from rt.lint.record import MAX_FINDINGS, Record

_ERRORS: Mapping[str, str] = MappingProxyType(
    {
        "LateFutureImport": "F404",
        "ImportStarNotPermitted": "F406",
        "FutureFeatureNotDefined": "F407",
        "PercentFormatInvalidFormat": "F501",
        "PercentFormatExpectedMapping": "F502",
        "PercentFormatExpectedSequence": "F503",
        "PercentFormatMissingArgument": "F505",
        "PercentFormatMixedPositionalAndNamed": "F506",
        "PercentFormatPositionalCountMismatch": "F507",
        "PercentFormatStarRequiresSequence": "F508",
        "PercentFormatUnsupportedFormatCharacter": "F509",
        "StringDotFormatInvalidFormat": "F521",
        "StringDotFormatMissingArgument": "F524",
        "StringDotFormatMixingAutomatic": "F525",
        "TooManyExpressionsInStarredAssignment": "F621",
        "TwoStarredExpressions": "F622",
        "InvalidPrintSyntax": "F633",
        "BreakOutsideLoop": "F701",
        "ContinueOutsideLoop": "F702",
        "YieldOutsideFunction": "F704",
        "ReturnOutsideFunction": "F706",
        "DefaultExceptNotLast": "F707",
        "UndefinedName": "F821",
        "UndefinedExport": "F822",
        "UndefinedLocal": "F823",
        "DuplicateArgument": "F831",
        "RaiseNotImplemented": "F901",
    }
)
"""The messages about code that fails when it runs, with the numbers of flake8 and ruff."""

_WARNINGS: Mapping[str, str] = MappingProxyType(
    {
        "UnusedImport": "F401",
        "ImportShadowedByLoopVar": "F402",
        "ImportStarUsed": "F403",
        "PercentFormatExtraNamedArguments": "F504",
        "StringDotFormatExtraNamedArguments": "F522",
        "StringDotFormatExtraPositionalArguments": "F523",
        "FStringMissingPlaceholders": "F541",
        "TStringMissingPlaceholders": "F542",
        "MultiValueRepeatedKeyLiteral": "F601",
        "MultiValueRepeatedKeyVariable": "F602",
        "AssertTuple": "F631",
        "IsLiteral": "F632",
        "IfTuple": "F634",
        "DoctestSyntaxError": "F721",
        "ForwardAnnotationSyntaxError": "F722",
        "RedefinedWhileUnused": "F811",
        "UnusedIndirectAssignment": "F824",
        "UnusedVariable": "F841",
        "UnusedAnnotation": "F842",
    }
)
"""The other messages, with the numbers of flake8 and ruff."""

_OTHER = "F999"
_IMPORT_MESSAGES = (messages.UnusedImport, messages.ImportStarUsed)
_DYNAMIC_NAMES = frozenset({"exec", "globals"})
"""Builtins by which a module may create names that the linter cannot see."""
_DEPTH = 20_000
_TOO_DEEP = "this is nested too deeply to check: split it into several statements"


def run(context: CheckContext, names: Collection[str]) -> Iterator[Record]:
    """Run pyflakes on a module.

    Args:
        context: The module; pyflakes does not change its tree.
        names: The names that the module finds without an import, besides Python's builtins.
    """
    module, source = context.module, context.module.source
    try:
        with _deep_recursion():
            checker = Checker(
                source.tree, filename=source.path, builtins=set(names), withDoctest=False
            )
    except (RecursionError, MemoryError):
        yield source.record("fatal", "too-deep", "RT904", _TOO_DEEP)
        return
    places = {
        (getattr(node, "lineno", 0), getattr(node, "col_offset", -1)): scope
        for node, scope in module.nodes()
    }
    named = {
        (node.lineno, node.col_offset): node
        for node, _ in module.nodes()
        if isinstance(node, ast.Name)
    }
    given = {
        node.lineno
        for node, _ in module.nodes()
        if isinstance(node, ast.Import | ast.ImportFrom) and given_names(context, node)
    }
    counts: Counter[str] = Counter()
    for message in sorted(checker.messages, key=lambda each: (each.lineno, each.col)):
        place = (message.lineno, message.col)
        if _is_harmless(context, message, named.get(place)) or (
            message.lineno in given and isinstance(message, _IMPORT_MESSAGES)
        ):
            continue
        symbol = (
            "UndefinedName"
            if isinstance(message, messages.ImportStarUsage)
            else type(message).__name__
        )
        counts[symbol] += 1
        if counts[symbol] > MAX_FINDINGS:
            continue
        scope = places.get(place, module.scope)
        yield source.record(
            "error" if symbol in _ERRORS else "warning",
            symbol,
            _ERRORS.get(symbol) or _WARNINGS.get(symbol, _OTHER),
            wording.message_of(context, message, scope, named.get(place)),
            obj=scope.name,
            line=message.lineno,
            offset=message.col,
        )


def _is_harmless(context: CheckContext, message: messages.Message, node: ast.Name | None) -> bool:
    """Return whether a message is certainly, or possibly, about correct code."""
    if isinstance(message, messages.UnusedImport):
        name = str(message.message_args[0]).rpartition(" as ")[2].rpartition(".")[2]
        # A package imports for others, and the main module for the robot; a star import has a
        # message of its own.
        return (
            context.module.source.path.endswith("__init__.py")
            or name == "*"
            or (context.is_main and name in ENTRIES)
        )
    if isinstance(message, messages.ImportStarUsage):
        return not _is_missing(context, *message.message_args)
    if isinstance(message, messages.UndefinedName) and node is not None:
        is_annotation = message.message_args[0] in NAMES and _is_unevaluated(context.module, node)
        return is_annotation or not _DYNAMIC_NAMES.isdisjoint(context.module.names_read)
    return False


def _is_missing(context: CheckContext, name: str, modules: str) -> bool:
    """Return whether no starred import has a name, as far as its modules are team code."""
    found = [context.program.modules.get(each) for each in modules.split(", ")]
    return all(each is not None and not {name, "*"} & each.scope.bindings.keys() for each in found)


def _is_unevaluated(module: Module, node: ast.AST) -> bool:
    """Return whether a name is in an annotation that Python never evaluates.

    This is the annotation of a local variable, or any with ``from __future__ import annotations``.
    """
    around = module.parents.get(node)
    while around is not None and not isinstance(around, ast.stmt | ast.arg):
        node, around = around, module.parents.get(around)
    if around is None or node not in {
        getattr(around, "annotation", None),
        getattr(around, "returns", None),
    }:
        return False
    future = module.binding(module.scope, "annotations")
    return (isinstance(future, ast.ImportFrom) and future.module == "__future__") or (
        isinstance(around, ast.AnnAssign) and module.scope_of(around).function is not None
    )


@contextlib.contextmanager
def _deep_recursion() -> Iterator[None]:
    """Raise the recursion limit so that pyflakes can follow a sum of a thousand terms.

    It recurses along expressions, in Python frames only.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
