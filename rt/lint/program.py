"""The robot's program: its main module, and the modules of its folder that it imports.

Invariant: the linter reads the files that the executor would load, and at most `MAX_MODULES` of
them. A file is team code if it is in the folder of the main module, and not in a library's.
"""

import ast
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from rt.config.team_code import is_file
from rt.lint.api import ENTRIES
from rt.lint.module import Function, Module, Scope, assigned
from rt.lint.record import Record
from rt.lint.source import read

MAX_MODULES = 64
"""How many modules of a program are checked."""
_LIBRARIES = frozenset({"site-packages", "dist-packages"})
_DYNAMIC_WRITERS = frozenset({"exec", "globals", "vars", "setattr"})
"""Builtins by which a program may assign to names that the linter cannot see."""
_HARMLESS_DECORATORS = frozenset({"dataclasses.dataclass"})
"""Decorators that leave a class's methods as they are."""


class Program:
    """Modules by name, the main one first.

    Args:
        main: The file that the robot runs.
        root: The directory that paths in records are relative to, if the files are in it.
        is_robot_program: Whether the robot runs it; else it is a file that is checked by itself.

    Attributes:
        main: The main module, which the robot runs; None if it could not be read.
        folder: The folder of the main module, from which it imports other modules.
        modules: The modules that could be read.
        broken: Records of those that could not.
        files: The path in records of each file that was read.
    """

    def __init__(self, main: Path, root: Path, *, is_robot_program: bool = True) -> None:
        self.is_robot_program = is_robot_program
        self.folder = main.parent
        self._root = root
        self.modules: dict[str, Module] = {}
        self.broken: list[Record] = []
        self.files: dict[Path, str] = {}
        self._load(main)
        for module in reversed(list(self.modules.values())):
            self._resolve_stars(module)
        self.main = self.modules.get(main.stem)

    def function(
        self, module: Module, scope: Scope, node: ast.AST
    ) -> tuple[Module, Function] | None:
        """Return the function or method that an expression certainly is, and its module."""
        found = self.definition(module, scope, node)
        if found is None:
            return self._method(module, scope, node) if isinstance(node, ast.Attribute) else None
        owner, function = found
        return (owner, function) if isinstance(function, Function) else None

    def definition(
        self, module: Module, scope: Scope, node: ast.AST
    ) -> tuple[Module, ast.AST] | None:
        """Return the only node that binds what an expression names, with its module, or None."""
        if isinstance(node, ast.Name):
            found = module.binding(scope, node.id)
            if found is not None and not isinstance(found, ast.Import | ast.ImportFrom):
                return module, found
        owner, name = self._imported(module, scope, node)
        found = owner.binding(owner.scope, name) if owner is not None else None
        return None if owner is None or found is None else (owner, found)

    def assigned(
        self, module: Module, scope: Scope, node: ast.AST
    ) -> tuple[Module, ast.expr | None]:
        """Return the value that a name is assigned once, or None, and its module."""
        owner, name = module, node.id if isinstance(node, ast.Name) else ""
        value = (
            assigned(module.binding(scope, name))
            if module.binding_scope(scope, name) is module.scope
            else None
        )
        if value is None:
            imported, name = self._imported(module, scope, node)
            if imported is None:
                return module, None
            owner, value = imported, assigned(imported.binding(imported.scope, name))
        return owner, None if self._may_be_reassigned(owner, name) else value

    def _method(
        self, module: Module, scope: Scope, node: ast.Attribute
    ) -> tuple[Module, Function] | None:
        """Return the method that an attribute of an instance certainly is, with its module.

        A class that inherits, has subclasses or is decorated, and a method that is decorated or
        assigned anywhere, may be something else at run time, and is not followed.
        """
        found = self._class_of(module, scope, node.value)
        if found is None or node.attr in self.assigned_attributes or self.has_dynamic_writes:
            return None
        owner, cls = found
        bound = owner.inner[cls].bindings.get(node.attr, [])
        if len(bound) == 1 and isinstance(bound[0], Function) and not bound[0].decorator_list:
            return owner, bound[0]
        return None

    def _class_of(
        self, module: Module, scope: Scope, node: ast.AST
    ) -> tuple[Module, ast.ClassDef] | None:
        """Return the class that an expression is certainly an instance of, with its module."""
        found = self.definition(module, scope, node)
        if found is None:
            return None
        owner, binding = found
        if isinstance(binding, ast.arg):
            cls = owner.class_of_self(binding)
            return self._plain_class(owner, cls) if cls is not None else None
        value = assigned(binding)
        if isinstance(value, ast.Call):
            made = self.definition(owner, owner.scope_of(binding), value.func)
            return self._plain_class(*made) if made is not None else None
        return None

    def _plain_class(self, module: Module, cls: ast.AST) -> tuple[Module, ast.ClassDef] | None:
        if not isinstance(cls, ast.ClassDef) or cls.bases or cls.keywords or cls.name in self.bases:
            return None
        scope = module.scope_of(cls)
        decorators = (
            each.func if isinstance(each, ast.Call) else each for each in cls.decorator_list
        )
        is_plain = all(module.origin(scope, each) in _HARMLESS_DECORATORS for each in decorators)
        return (module, cls) if is_plain else None

    @cached_property
    def timed(self) -> Mapping[ast.AST, str]:
        """The functions that run under a time limit in the main thread, by function.

        The values are the names of the setup or main that leads to each. They are the setups and
        mains, and every plain function that they certainly call, directly or not. A function with a
        name like `arm_main` is one unless the program uses it itself, for example in a thread.
        """
        found: dict[ast.AST, str] = {}
        if self.main is None:
            return found
        todo: deque[tuple[Module, Function, str]] = deque()
        for name in self.main.scope.bindings:
            if name in ENTRIES or (name.endswith(("_main", "_setup")) and name not in self._used):
                begin = self._final_function(self.main, name)
                if begin is not None and isinstance(begin[1], ast.FunctionDef):
                    todo.append((*begin, name))
        while todo:
            module, function, entry = todo.popleft()
            if function in found:
                continue
            found[function] = entry
            scope = module.inner[function]
            for node in scope.nodes:
                called = (
                    self.function(module, scope, node.func) if isinstance(node, ast.Call) else None
                )
                if called is not None and isinstance(called[1], ast.FunctionDef):
                    todo.append((*called, entry))
        return found

    def _final_function(self, module: Module, name: str) -> tuple[Module, Function] | None:
        """Return the function that a module's name is at the end, imported or not."""
        last = module.scope.bindings[name][-1]
        return (
            (module, last)
            if isinstance(last, Function)
            else self.function(module, module.scope, ast.Name(name, ast.Load()))
        )

    @cached_property
    def assigned_attributes(self) -> Mapping[str, frozenset[str]]:
        """The attributes that are assigned anywhere, with the modules that they are names of.

        An example is ``arm.SPEED = 1``.
        """
        found: dict[str, set[str]] = {}
        for module in self.modules.values():
            for node, scope in module.nodes():
                if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                    found.setdefault(node.attr, set()).add(module.origin(scope, node.value))
        return {name: frozenset(owners) for name, owners in found.items()}

    @cached_property
    def methods(self) -> frozenset[Function]:
        """The functions that are defined in classes."""
        return frozenset(
            scope.function
            for module in self.modules.values()
            for scope in module.scopes
            if scope.function and scope.parent and isinstance(scope.parent.node, ast.ClassDef)
        )

    @cached_property
    def bases(self) -> frozenset[str]:
        """The names of all base classes."""
        return frozenset(
            getattr(base, "id", getattr(base, "attr", ""))
            for module in self.modules.values()
            for node, _ in module.nodes()
            if isinstance(node, ast.ClassDef)
            for base in node.bases
        )

    @cached_property
    def _used(self) -> frozenset[str]:
        """Every name that is read anywhere."""
        return frozenset().union(*(module.names_read for module in self.modules.values()))

    @cached_property
    def has_dynamic_writes(self) -> bool:
        """Whether the program may assign to names or attributes that the linter cannot see."""
        return not _DYNAMIC_WRITERS.isdisjoint(self._used)

    def _may_be_reassigned(self, owner: Module, name: str) -> bool:
        """Return whether a module's name may be assigned outside of its module."""
        return self.has_dynamic_writes or owner.name in self.assigned_attributes.get(name, ())

    def _imported(self, module: Module, scope: Scope, node: ast.AST) -> tuple[Module | None, str]:
        """Return the module that an expression was imported from, and its name there."""
        path, _, name = module.origin(scope, node).rpartition(".")
        owner = self.modules.get(path)
        return (owner, name) if owner is not module else (None, name)

    def _load(self, main: Path) -> None:
        todo: deque[tuple[str, Path]] = deque([(main.stem, main)])
        seen = {main}
        while todo and len(seen) <= MAX_MODULES:
            name, file = todo.popleft()
            self.files[file] = self._display_path(file)
            source = read(file, name, self.files[file])
            if isinstance(source, Record):
                self.broken.append(source)
                continue
            module = self.modules[name] = Module(source)
            package = (
                name if file.name == "__init__.py" and file != main else name.rpartition(".")[0]
            )
            for wanted in _imports(module, package):
                for found in files_of(wanted, self.folder):
                    if found[1] not in seen:
                        seen.add(found[1])
                        todo.append(found)

    def _resolve_stars(self, module: Module) -> None:
        """Bind the names that ``from arm import *`` imports from other modules of the team code."""
        bindings = module.scope.bindings
        closed = []
        for node in bindings.pop("*", []):
            owner = (
                self.modules.get(str(getattr(node, "module", "")))
                if not getattr(node, "level", 0)
                else None
            )
            brought = (
                owner.scope.bindings if owner is not None and owner is not module else {"*": []}
            )
            for name in brought:
                if not name.startswith(("_", "*")):
                    module.scope.bind(name, node)
            if "*" in brought:
                closed.append(node)
        if closed:
            bindings["*"] = closed

    def _display_path(self, file: Path) -> str:
        return str(file.relative_to(self._root) if file.is_relative_to(self._root) else file)


def files_of(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of an imported module, outer packages first, each with its dotted name.

    Files that are not team code are left out.
    """
    parts = name.split(".")
    if parts[0] in sys.builtin_module_names or not {*parts}.isdisjoint({*_LIBRARIES, ""}):
        return
    for count in range(1, len(parts) + 1):
        base = folder.joinpath(*parts[:count])
        for file in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if is_file(file):
                yield ".".join(parts[:count]), file
                break


def _imports(module: Module, package: str) -> Iterator[str]:
    """Yield the dotted names of a module's imports; one may be a name in a module, not a module."""
    for node, _ in module.nodes():
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".") if package else []
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)
