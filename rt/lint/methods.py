"""Methods of the team's classes: which function ``self.lift`` or ``arm.lift`` certainly is.

The rule of this module is that of ``module``: it never guesses. A class that inherits, is inherited
from or is decorated, and a method that is decorated or assigned anywhere, may be something else
when the program runs, and is not followed.
"""

import ast
from typing import TYPE_CHECKING

from rt.lint.module import Function, Module, Scope, assigned

if TYPE_CHECKING:
    from rt.lint.program import Program

_HARMLESS = frozenset({"dataclasses.dataclass"})
"""Decorators that leave a class's methods as they are."""


def method(
    program: "Program", module: Module, scope: Scope, node: ast.Attribute
) -> tuple[Module, Function] | None:
    """The method that an attribute of an instance certainly is, with its module, or None."""
    found = _class_of(program, module, scope, node.value)
    if found is None or node.attr in program.stored or program.writes_unseen:
        return None
    owner, cls = found
    bound = owner.inner[cls].bindings.get(node.attr, [])
    if len(bound) == 1 and isinstance(bound[0], Function) and not bound[0].decorator_list:
        return owner, bound[0]
    return None


def _class_of(
    program: "Program", module: Module, scope: Scope, node: ast.AST
) -> tuple[Module, ast.ClassDef] | None:
    """The class that an expression is certainly an instance of, with its module, or None."""
    found = program.definition(module, scope, node)
    if found is None:
        return None
    owner, binding = found
    if isinstance(binding, ast.arg):
        cls = owner.class_of_self(binding)
        return _plain(program, owner, cls) if cls is not None else None
    value = assigned(binding)
    if isinstance(value, ast.Call):
        made = program.definition(owner, owner.scope_of(binding), value.func)
        return _plain(program, *made) if made is not None else None
    return None


def _plain(program: "Program", module: Module, cls: ast.AST) -> tuple[Module, ast.ClassDef] | None:
    if not isinstance(cls, ast.ClassDef) or cls.bases or cls.keywords or cls.name in program.bases:
        return None
    scope = module.scope_of(cls)
    decorators = (each.func if isinstance(each, ast.Call) else each for each in cls.decorator_list)
    return (
        (module, cls)
        if all(module.origin(scope, each) in _HARMLESS for each in decorators)
        else None
    )
