"""What pyflakes says of a fault, in words that name the remedy too.

The rule of this module: the team's code is read by people who learn to program. What is not in here
is clear as it is.
"""

import ast
import builtins
import math
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType

from pyflakes import messages

from rt.config import nearest
from rt.lint.api import NAMES
from rt.lint.check import CheckContext
from rt.lint.module import Scope

_REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "UnusedImport": "leave the import out",
        "FStringMissingPlaceholders": "put {...} into it, or leave out the f",
        "MultiValueRepeatedKeyLiteral": "only the last one counts",
        "MultiValueRepeatedKeyVariable": "only the last one counts",
        "UnusedIndirectAssignment": "leave the line out",
        "UnusedAnnotation": "leave the line out",
        "ImportShadowedByLoopVar": "give one of them another name",
    }
)
"""What follows the sentence of pyflakes."""

_UNKNOWN = ": give it a value first, or correct its spelling"
_CUTOFF = 0.75
_MAX_NAMES = 1000
"""Of so many names the nearest is looked for: there may be as many undefined ones as a hostile file likes."""


def message_of(
    context: CheckContext, message: messages.Message, scope: Scope, node: ast.Name | None
) -> str:
    """The sentence for what pyflakes has found, with the remedy.

    Args:
        context: The module that it is in.
        message: What pyflakes says.
        scope: Where.
        node: The name that it is about, if it is about one.
    """
    if isinstance(message, messages.UndefinedName | messages.ImportStarUsage):
        name = str(message.message_args[0])
        return f"undefined name {name!r}{_suggestion(context, name, scope, node)}"
    if isinstance(message, messages.UndefinedLocal) and isinstance(message.message_args, tuple):
        name, line = message.message_args
        word = "global" if name in context.module.scope.bindings else "nonlocal"
        return f"{name} is used before this function gives it a value: write `{word} {name}` as its first line to use the {name} of line {line}"
    if isinstance(message, messages.UnusedVariable):
        return _unused(context, str(message.message_args[0]), scope)
    if isinstance(message, messages.RedefinedWhileUnused):
        name, line = message.message_args
        return (
            f"{name} is defined twice: this one replaces that of line {line}, which is never used"
        )
    if isinstance(message, messages.ImportStarUsed):
        (name,) = message.message_args
        return f"what `from {name} import *` brings cannot be told: name what you need, as `from {name} import NAME`"
    try:
        text = str(message.message % message.message_args)
    except (TypeError, ValueError):
        text = message.message
    remedy = _REMEDIES.get(type(message).__name__)
    return f"{text}: {remedy}" if remedy else text


def _suggestion(context: CheckContext, name: str, scope: Scope, node: ast.Name | None) -> str:
    """What an undefined name may have been meant to be, as the rest of a sentence."""
    if name in NAMES and not context.is_main:
        return ": only the robot's main module has it; hand it over as an argument"
    if name == "self" and scope.function and context.is_method(scope.function):
        return f": write `def {scope.function.name}(self):`, with what else it takes"
    if name in _texts(context) and node and isinstance(context.module.parents.get(node), ast.Call):
        return f": a device's or parameter's name is a text, write it in quotes: {name!r}"
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
        return f"the {name} of line {line} keeps its value: to change it write `global {name}` as this function's first line"
    return f"{name} is given a value that is never used: use it, or leave it out"


def _texts(context: CheckContext) -> set[str]:
    """What is written in quotes: names of devices and of parameters."""
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
