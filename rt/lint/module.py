"""A module of team code with its scopes: which nodes bind a name, and what a name certainly is.

Invariant: nothing is guessed. A name that is bound twice, or in a way that is not followed, is
``UNKNOWN``, and no check reports anything about it.
Invariant: nothing recurses along the code, so deep nesting is harmless.

astroid 4.3 does not replace this. It would nearly double the time of a lint process (0.3 s more on
top of 0.37 s for the program of `rt demo`) and has 31,000 lines in 1 MiB. It infers what a name may
be, not what it certainly is, and ignores ``exec``. A sum of 5000 terms makes it raise
`RecursionError`.
"""

import ast
import builtins
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from rt.lint.source import Source

UNKNOWN: Final = object()
"""The value of an expression that is not certain without running the program."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class Scope:
    """A module, class, function or lambda, and the names bound in it.

    Attributes:
        node: The node that creates it.
        parent: The enclosing scope, or None.
        name: Its qualified name; empty for the module.
        bindings: The nodes that bind each name: definitions, imports, assignments and others.
        nodes: Its nodes in source order, without those of inner scopes.
        global_names: The names that it declares ``global``.
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
        """The function of the scope, or None."""
        return self.node if isinstance(self.node, Function) else None

    @property
    def is_async(self) -> bool:
        """Whether its code is that of an action."""
        return isinstance(self.node, ast.AsyncFunctionDef)

    def bind(self, name: str, node: ast.AST) -> None:
        """Record that a node binds a name, here or in the module if the name is ``global``."""
        scope = self
        if name in self.global_names:
            while scope.parent is not None:
                scope = scope.parent
        scope.bindings.setdefault(name, []).append(node)


class Module:
    """A module with its scopes.

    Args:
        source: The module's text and tree.

    Attributes:
        scope: The module's own scope.
        scopes: All scopes, the module's first.
        inner: The scope that each definition creates.
        parents: The parent of each node.
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
        """The name by which it is imported."""
        return self.source.name

    @cached_property
    def names_read(self) -> frozenset[str]:
        """Every name that it reads."""
        return frozenset(
            node.id
            for node, _ in self.nodes()
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        )

    def nodes(self) -> Iterator[tuple[ast.AST, Scope]]:
        """Yield every node with its scope, scope by scope."""
        for scope in self.scopes:
            for node in scope.nodes:
                yield node, scope

    def scope_of(self, node: ast.AST) -> Scope:
        """Return the scope that contains a node; for a definition, the enclosing one."""
        return self._scope_of.get(node, self.scope)

    def binding_scope(self, scope: Scope, name: str) -> Scope | None:
        """Return the scope of this module that binds a name, as seen from a scope, or None."""
        if name in scope.global_names:
            scope = self.scope
        looked: Scope | None = scope
        while looked is not None:
            # The names of a class are not visible in its methods.
            if name in looked.bindings and (
                looked is scope or not isinstance(looked.node, ast.ClassDef)
            ):
                return looked
            looked = looked.parent
        return None

    def binding(self, scope: Scope, name: str) -> ast.AST | None:
        """Return the only node that binds a name, as seen from a scope; None if not certain."""
        found = self.binding_scope(scope, name)
        if found is None or len(found.bindings[name]) != 1:
            return None
        return found.bindings[name][0]

    def class_of_self(self, argument: ast.arg) -> ast.ClassDef | None:
        """Return the class of the method whose first argument this is, or None."""
        function = self.parents.get(self.parents.get(argument, argument))
        if not isinstance(function, Function) or function.decorator_list:
            return None
        first = (function.args.posonlyargs or function.args.args)[:1]
        cls = self.scope_of(function).node
        return cls if first == [argument] and isinstance(cls, ast.ClassDef) else None

    def origin(self, scope: Scope, node: ast.AST) -> str:
        """Return the dotted name that an expression was imported as, such as ``time.sleep``.

        The name is empty if it was not imported.
        """
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
        """Return the only ``from x import *`` that can have bound an unbound name, or None."""
        stars = self.scope.bindings.get("*", [])
        return (
            stars[0]
            if len(stars) == 1
            and self.binding_scope(scope, name) is None
            and not hasattr(builtins, name)
            else None
        )

    def _build(self) -> None:
        tree = self.source.tree
        todo = [(child, self.scope) for child in _reversed(tree)]
        self.parents.update((child, tree) for child, _ in todo)
        while todo:
            node, scope = todo.pop()
            self._scope_of[node] = scope
            scope.nodes.append(node)
            _bind(scope, node, self.parents[node])
            children = _reversed(node)
            self.parents.update((child, node) for child in children)
            if isinstance(node, _SCOPES):
                todo += self._enter(node, scope)
            else:
                todo += [(child, scope) for child in children]

    def _enter(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda, scope: Scope
    ) -> Iterator[tuple[ast.AST, Scope]]:
        """Yield the children of a definition with their scopes, in reverse order.

        The body belongs to a new scope; decorators and defaults belong to the enclosing one.
        """
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
        # Before the first binding, because a `global` may follow it in a branch.
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


def _bind(scope: Scope, node: ast.AST, parent: ast.AST) -> None:
    match node:
        case (
            ast.FunctionDef(name=name)
            | ast.AsyncFunctionDef(name=name)
            | ast.ClassDef(name=name)
            | ast.ExceptHandler(name=str(name))
            | ast.MatchAs(name=str(name))
            | ast.MatchStar(name=str(name))
            | ast.MatchMapping(rest=str(name))
        ):
            scope.bind(name, node)
        case ast.Import() | ast.ImportFrom():
            for alias in node.names:
                scope.bind(alias.asname or alias.name.partition(".")[0], node)
        case ast.Nonlocal():
            for name in node.names:
                scope.bind(name, node)
                _mark_uncertain(scope, name, node)
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            match parent:
                case ast.Assign(targets=[_]) | ast.AnnAssign(value=ast.expr()):
                    scope.bind(name, parent)  # a plain assignment, whose value is known
                case _:
                    scope.bind(name, node)
        case _:
            pass


def _mark_uncertain(scope: Scope, name: str, node: ast.AST) -> None:
    """Mark a name of an enclosing function as uncertain, because an inner scope binds it."""
    outer = scope.parent
    while outer is not None and outer.parent is not None:
        if name in outer.bindings:
            outer.bindings[name].append(node)
        outer = outer.parent


def assigned(node: ast.AST | None) -> ast.expr | None:
    """Return the value of a binding that is a plain assignment, or None."""
    return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
