"""The messages of pyflakes, with a remedy added, for people who learn to program.

Messages that are clear without a remedy are not changed.
"""

import ast
import builtins
import math
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType

from pyflakes import messages

from rt.lint.api import NAMES
from rt.lint.check import CheckContext
from rt.lint.module import Scope
from rt.text import nearest

_REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "UnusedImport": "remove the import",
        "FStringMissingPlaceholders": "add {...}, or remove the f",
        "MultiValueRepeatedKeyLiteral": "only the last one counts",
        "MultiValueRepeatedKeyVariable": "only the last one counts",
        "UnusedIndirectAssignment": "remove the line",
        "UnusedAnnotation": "remove the line",
        "ImportShadowedByLoopVar": "give one of them another name",
    }
)
"""The remedy that follows a message of pyflakes, by message class."""

_UNKNOWN = ": give it a value first, or correct its spelling"
_CUTOFF = 0.75
_MAX_NAMES = 1000
"""How many names are compared to find the nearest one; a hostile file may define any number."""


def message_of(
    context: CheckContext, message: messages.Message, scope: Scope, node: ast.Name | None
) -> str:
    """Return the message for a finding of pyflakes, with a remedy.

    Args:
        context: The module with the finding.
        message: The message of pyflakes.
        scope: The scope of the finding.
        node: The name that it is about, if any.
    """
    if isinstance(message, messages.UndefinedName | messages.ImportStarUsage):
        name = str(message.message_args[0])
        return f"undefined name {name!r}{_suggestion(context, name, scope, node)}"
    if isinstance(message, messages.UndefinedLocal) and isinstance(message.message_args, tuple):
        name, line = message.message_args
        word = "global" if name in context.module.scope.bindings else "nonlocal"
        return (
            f"{name} is used before this function gives it a value: write `{word} {name}` as its"
            f" first line to use the {name} of line {line}"
        )
    if isinstance(message, messages.UnusedVariable):
        return _unused(context, str(message.message_args[0]), scope)
    if isinstance(message, messages.RedefinedWhileUnused):
        name, line = message.message_args
        return (
            f"{name} is defined twice: this one replaces that of line {line}, which is never used"
        )
    if isinstance(message, messages.ImportStarUsed):
        (name,) = message.message_args
        return (
            f"the names that `from {name} import *` imports are unknown: name what you need,"
            f" as in `from {name} import NAME`"
        )
    try:
        text = str(message.message % message.message_args)
    except (TypeError, ValueError):
        text = message.message
    remedy = _REMEDIES.get(type(message).__name__)
    return f"{text}: {remedy}" if remedy else text


def _suggestion(context: CheckContext, name: str, scope: Scope, node: ast.Name | None) -> str:
    """Return what an undefined name may have been meant to be, as the rest of a message."""
    if name in NAMES and not context.is_main:
        return ": only the main module has it; pass it as an argument"
    if name == "self" and scope.function and context.is_method(scope.function):
        return f": write `def {scope.function.name}(self):`, with its other arguments"
    if name in _texts(context) and node and isinstance(context.module.parents.get(node), ast.Call):
        return f": device and parameter names are strings, so write it in quotes: {name!r}"
    others = (each for each in islice(_names(context, scope), _MAX_NAMES) if each != name)
    return (
        _import_suggestion(context, name, node) or nearest(name, others, cutoff=_CUTOFF) or _UNKNOWN
    )


def _import_suggestion(context: CheckContext, name: str, node: ast.Name | None) -> str:
    if (
        name in sys.stdlib_module_names
        and node
        and isinstance(context.module.parents.get(node), ast.Attribute)
    ):
        return f": write `import {name}` at the top of the file"
    if hasattr(math, name):
        return f": write `from math import {name}` at the top of the file"
    return ": an action waits with `await Actions.sleep(...)`" if name == "sleep" else ""


def _unused(context: CheckContext, name: str, scope: Scope) -> str:
    bound = context.module.scope.bindings.get(name)
    line = getattr(bound[0], "lineno", 0) if bound else 0
    if scope is not context.module.scope and line:
        return (
            f"the {name} of line {line} keeps its value: to change it, write `global {name}` as"
            " the first line of this function"
        )
    return f"{name} is given a value that is never used: use it or remove it"


def _texts(context: CheckContext) -> set[str]:
    """Return the names that are written in quotes: of devices and of parameters."""
    return {
        *context.names,
        *(param.name for each in context.catalog.values() for param in each.params),
    }


def _names(context: CheckContext, scope: Scope) -> Iterator[str]:
    yield from NAMES if context.is_main else ()
    yield from dir(builtins)
    looked: Scope | None = scope
    while looked is not None:
        yield from looked.bindings
        looked = looked.parent
