"""pyflakes over a module, as records: unused and undefined names, and what else can be seen without running the code."""

import contextlib
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from pyflakes import messages
from pyflakes.checker import Checker

from rt.lint.api import NAMES
from rt.lint.module import Module
from rt.lint.record import MOST_FAULTS, Record, record

CODES: Mapping[str, str] = MappingProxyType(
    {
        "UnusedImport": "F401",
        "ImportShadowedByLoopVar": "F402",
        "ImportStarUsed": "F403",
        "LateFutureImport": "F404",
        "ImportStarUsage": "F405",
        "ImportStarNotPermitted": "F406",
        "FutureFeatureNotDefined": "F407",
        "PercentFormatInvalidFormat": "F501",
        "PercentFormatExpectedMapping": "F502",
        "PercentFormatExpectedSequence": "F503",
        "PercentFormatExtraNamedArguments": "F504",
        "PercentFormatMissingArgument": "F505",
        "PercentFormatMixedPositionalAndNamed": "F506",
        "PercentFormatPositionalCountMismatch": "F507",
        "PercentFormatStarRequiresSequence": "F508",
        "PercentFormatUnsupportedFormatCharacter": "F509",
        "StringDotFormatInvalidFormat": "F521",
        "StringDotFormatExtraNamedArguments": "F522",
        "StringDotFormatExtraPositionalArguments": "F523",
        "StringDotFormatMissingArgument": "F524",
        "StringDotFormatMixingAutomatic": "F525",
        "FStringMissingPlaceholders": "F541",
        "TStringMissingPlaceholders": "F542",
        "MultiValueRepeatedKeyLiteral": "F601",
        "MultiValueRepeatedKeyVariable": "F602",
        "TooManyExpressionsInStarredAssignment": "F621",
        "TwoStarredExpressions": "F622",
        "AssertTuple": "F631",
        "IsLiteral": "F632",
        "InvalidPrintSyntax": "F633",
        "IfTuple": "F634",
        "BreakOutsideLoop": "F701",
        "ContinueOutsideLoop": "F702",
        "YieldOutsideFunction": "F704",
        "ReturnOutsideFunction": "F706",
        "DefaultExceptNotLast": "F707",
        "DoctestSyntaxError": "F721",
        "ForwardAnnotationSyntaxError": "F722",
        "RedefinedWhileUnused": "F811",
        "UndefinedName": "F821",
        "UndefinedExport": "F822",
        "UndefinedLocal": "F823",
        "UnusedIndirectAssignment": "F824",
        "DuplicateArgument": "F831",
        "UnusedVariable": "F841",
        "UnusedAnnotation": "F842",
        "RaiseNotImplemented": "F901",
    }
)
"""The numbers that flake8 and ruff give to pyflakes' messages."""

_OTHER = "F999"
_DEPTH = 20_000
_ERRORS = frozenset(
    {
        *("UndefinedName", "UndefinedLocal", "UndefinedExport", "DuplicateArgument", "FutureFeatureNotDefined"),
        *("ReturnOutsideFunction", "YieldOutsideFunction", "BreakOutsideLoop", "ContinueOutsideLoop"),
        *("DefaultExceptNotLast", "TwoStarredExpressions", "TooManyExpressionsInStarredAssignment"),
        *("ImportStarNotPermitted", "LateFutureImport", "InvalidPrintSyntax", "RaiseNotImplemented"),
        *("StringDotFormatInvalidFormat", "StringDotFormatMissingArgument", "StringDotFormatMixingAutomatic"),
        *("PercentFormatInvalidFormat", "PercentFormatMissingArgument", "PercentFormatPositionalCountMismatch"),
        *("PercentFormatExpectedMapping", "PercentFormatExpectedSequence", "PercentFormatMixedPositionalAndNamed"),
        *("PercentFormatUnsupportedFormatCharacter", "PercentFormatStarRequiresSequence"),
    }
)
"""What fails when it runs; the rest is a warning."""


def run(module: Module, names: Collection[str], *, is_main: bool) -> Iterator[Record]:
    """Run pyflakes over a module.

    Args:
        module: The module; pyflakes does not change its tree.
        names: What it finds without an import, beside Python's own names.
        is_main: Whether rt puts its names into it.
    """
    source = module.source
    try:
        with _deep_recursion():
            checker = Checker(source.tree, filename=source.path, builtins=set(names), withDoctest=False)
    except (RecursionError, MemoryError):
        sentence = "this is nested too deeply to be looked at: write it as several statements"
        yield record("fatal", source.path, "too-deep", "RT904", sentence, module=source.name)
        return
    places = {(getattr(node, "lineno", 0), getattr(node, "col_offset", -1)): scope for node, scope in module.nodes()}
    told: Counter[str] = Counter()
    for message in sorted(checker.messages, key=lambda each: (each.lineno, each.col)):
        if isinstance(message, messages.UnusedImport) and source.path.endswith("__init__.py"):
            continue  # a package imports for others
        told[type(message).__name__] += 1
        if told[type(message).__name__] > MOST_FAULTS:
            continue
        scope = places.get((message.lineno, message.col), module.scope)
        symbol = type(message).__name__
        yield record(
            "error" if symbol in _ERRORS else "warning",
            source.path,
            symbol,
            CODES.get(symbol, _OTHER),
            _sentence(message, is_main=is_main),
            module=source.name,
            obj=scope.name,
            line=message.lineno,
            column=source.column(message.lineno, message.col),
        )


@contextlib.contextmanager
def _deep_recursion() -> Iterator[None]:
    """Let pyflakes follow a sum of a thousand terms: it recurses along expressions, in Python frames only."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _sentence(message: messages.Message, *, is_main: bool) -> str:
    try:
        text = message.message % message.message_args
    except (TypeError, ValueError):
        text = message.message
    if isinstance(message, messages.UndefinedName) and message.message_args[0] in NAMES and not is_main:
        return f"{text}: only the robot's main module has it; hand it over as an argument"
    return str(text)
