"""A module of the team's code with its scopes: who binds a name, and what a name stands for as long as that is certain.

The rule of this module: it never guesses. A name that is bound twice, or in a way that is not
followed, stands for ``UNKNOWN``, and no check says anything about that. Nothing recurses along the
code, so that no depth of it is too deep.
"""

import ast
import builtins
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from rt.lint.source import Source

UNKNOWN: Final = object()
"""What cannot be told without running the program."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class Scope:
    """A module, class, function or lambda, and what is bound in it.

    Attributes:
        node: The node that makes it.
        parent: The scope around it, or None.
        name: Its qualified name; empty for the module.
        bindings: For each name the nodes that bind it: definitions, imports, assignments, whatever
            else.
        nodes: The nodes in it, in the order of the text, without those of the scopes in it.
    """

    def __init__(self, node: ast.AST, parent: "Scope | None") -> None:
        self.node = node
        self.parent = parent
        self.bindings: dict[str, list[ast.AST]] = {}
        self.nodes: list[ast.AST] = []
        self.global_names: set[str] = set()
        own = getattr(node, "name", "<lambda>") if parent is not None else ""
        self.name: str = f"{parent.name}.{own}" if parent is not None and parent.name else own

    @property
    def function(self) -> Function | None:
        """The function that it is, or None."""
        return self.node if isinstance(self.node, Function) else None

    @property
    def is_async(self) -> bool:
        """Whether code in it is that of an action."""
        return isinstance(self.node, ast.AsyncFunctionDef)

    def bind(self, name: str, node: ast.AST) -> None:
        """Note that a node binds a name here, or in the scope that ``global`` and ``nonlocal`` name."""
        scope = self
        if name in self.global_names:
            while scope.parent is not None:
                scope = scope.parent
        scope.bindings.setdefault(name, []).append(node)


class Module:
    """A module of which every node is known with its scope.

    Args:
        source: The module's text and tree.

    Attributes:
        scope: That of the module.
        scopes: All, the module's first.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.scope = Scope(source.tree, None)
        self.scopes = [self.scope]
        self.inner: dict[ast.AST, Scope] = {source.tree: self.scope}
        self.parents: dict[ast.AST, ast.AST] = {}
        self._scope_of: dict[ast.AST, Scope] = {}
        self._build()

    @property
    def name(self) -> str:
        """As it is imported."""
        return self.source.name

    @cached_property
    def has_dynamic_names(self) -> bool:
        """Whether it may have names that nobody sees it make, by ``exec`` or ``globals``."""
        read = {
            node.id
            for node, _ in self.nodes()
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        return not read.isdisjoint({"exec", "globals"})

    def nodes(self) -> Iterator[tuple[ast.AST, Scope]]:
        """Every node with the scope that it stands in, scope by scope."""
        for scope in self.scopes:
            for node in scope.nodes:
                yield node, scope

    def scope_of(self, node: ast.AST) -> Scope:
        """The scope that a node stands in; of a definition the one around it."""
        return self._scope_of.get(node, self.scope)

    def binding_scope(self, scope: Scope, name: str) -> Scope | None:
        """The scope that binds a name as seen from a scope, or None when none of the module does."""
        if name in scope.global_names:
            scope = self.scope
        looked: Scope | None = scope
        while looked is not None:
            # The names of a class are not seen from its methods.
            if name in looked.bindings and (
                looked is scope or not isinstance(looked.node, ast.ClassDef)
            ):
                return looked
            looked = looked.parent
        return None

    def binding(self, scope: Scope, name: str) -> ast.AST | None:
        """The one node that binds a name as seen from a scope; None if there is none or several."""
        found = self.binding_scope(scope, name)
        if found is None or len(found.bindings[name]) != 1:
            return None
        return found.bindings[name][0]

    def definition(self, scope: Scope, name: str) -> Function | None:
        """The function that a name certainly is, or None."""
        found = self.binding(scope, name)
        return found if isinstance(found, Function) else None

    def class_of_self(self, argument: ast.arg) -> ast.ClassDef | None:
        """The class of a method of which this is the first argument, or None."""
        function = self.parents.get(self.parents.get(argument, argument))
        if not isinstance(function, Function) or function.decorator_list:
            return None
        first = (function.args.posonlyargs or function.args.args)[:1]
        cls = self.scope_of(function).node
        return cls if first == [argument] and isinstance(cls, ast.ClassDef) else None

    def origin(self, scope: Scope, node: ast.AST) -> str:
        """The dotted name that an expression was imported as, e.g. ``time.sleep``; empty when it was not."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        bound = self.binding(scope, node.id) or self._star(scope, node.id)
        if isinstance(bound, ast.Import):
            alias = next(
                each
                for each in bound.names
                if (each.asname or each.name.partition(".")[0]) == node.id
            )
            names.append(alias.name if alias.asname else node.id)
        elif isinstance(bound, ast.ImportFrom) and bound.module and not bound.level:
            own = {each.asname or each.name: each.name for each in bound.names}
            names.append(f"{bound.module}.{own.get(node.id, node.id)}")
        else:
            return ""
        return ".".join(reversed(names))

    def _star(self, scope: Scope, name: str) -> ast.AST | None:
        """The only ``from x import *`` that can have brought a name which nothing else binds, or None."""
        stars = self.scope.bindings.get("*", [])
        return (
            stars[0]
            if len(stars) == 1
            and self.binding_scope(scope, name) is None
            and not hasattr(builtins, name)
            else None
        )

    def _build(self) -> None:
        todo: list[tuple[ast.AST, Scope]] = [
            (child, self.scope) for child in _reversed(self.source.tree)
        ]
        for child, _ in todo:
            self.parents[child] = self.source.tree
        while todo:
            node, scope = todo.pop()
            self._scope_of[node] = scope
            scope.nodes.append(node)
            _bind(scope, node)
            for child in _reversed(node):
                self.parents[child] = node
            if isinstance(node, _SCOPES):
                todo += self._enter(node, scope)
            else:
                todo += [(child, scope) for child in _reversed(node)]

    def _enter(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda, scope: Scope
    ) -> Iterator[tuple[ast.AST, Scope]]:
        """What stands in a definition, last first: its body is a scope, its decorators and defaults belong to the one around."""
        inner = Scope(node, scope)
        self.scopes.append(inner)
        self.inner[node] = inner
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
        if not isinstance(node, ast.ClassDef):
            arguments = node.args
            named = (
                *arguments.posonlyargs,
                *arguments.args,
                *arguments.kwonlyargs,
                arguments.vararg,
                arguments.kwarg,
            )
            for argument in named:
                if argument is not None:
                    inner.bind(argument.arg, argument)
        # Known before the first binding: a `global` may stand below it in a branch.
        for child in body:
            _collect_globals(inner, child)
        inside = set(body)
        for child in reversed(body):
            yield child, inner
        for child in _reversed(node):
            if child not in inside:
                yield child, scope


def _reversed(node: ast.AST) -> list[ast.AST]:
    return list(ast.iter_child_nodes(node))[::-1]


def _collect_globals(scope: Scope, root: ast.AST) -> None:
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Global):
            scope.global_names.update(node.names)
        elif isinstance(node, ast.stmt) and not isinstance(node, _SCOPES):
            below = (ast.stmt, ast.ExceptHandler, ast.match_case)
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, below)]
        elif isinstance(node, ast.ExceptHandler | ast.match_case):
            todo += node.body


def _bind(scope: Scope, node: ast.AST) -> None:  # noqa: C901, PLR0912 - one line for each way of Python to bind a name
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            scope.bind(node.name, node)
        case ast.Import():
            for alias in node.names:
                scope.bind(alias.asname or alias.name.partition(".")[0], node)
        case ast.ImportFrom():
            for alias in node.names:
                scope.bind(alias.asname or alias.name, node)
        case ast.Assign(targets=[ast.Name(id=name)]):
            scope.bind(name, node)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            scope.bind(name, node)
        case (
            ast.ExceptHandler(name=str(name))
            | ast.MatchAs(name=str(name))
            | ast.MatchStar(name=str(name))
        ):
            scope.bind(name, node)
        case ast.MatchMapping(rest=str(name)):
            scope.bind(name, node)
        case ast.Nonlocal():
            for name in node.names:
                scope.bind(name, node)
                _mark_uncertain(scope, name, node)
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            if not _is_bound_by_parent(scope, name):
                scope.bind(name, node)
        case _:
            pass


def _is_bound_by_parent(scope: Scope, name: str) -> bool:
    """Whether a stored name is the target of the assignment before it, which bound it already with its value."""
    before = scope.nodes[-2] if len(scope.nodes) > 1 else None
    match before:
        case (
            ast.Assign(targets=[ast.Name(id=bound)])
            | ast.AnnAssign(target=ast.Name(id=bound), value=ast.expr())
        ):
            return bound == name
    return False


def _mark_uncertain(scope: Scope, name: str, node: ast.AST) -> None:
    """A name of a function around is bound from within: what it stands for is not certain any more."""
    outer = scope.parent
    while outer is not None and outer.parent is not None:
        if name in outer.bindings:
            outer.bindings[name].append(node)
        outer = outer.parent


def assigned(node: ast.AST | None) -> ast.expr | None:
    """The value of a binding that is one plain assignment, or None."""
    return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
