"""Tests of the public API: each name is importable and documented, and is imported on demand."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import rt
import rt.testing

PACKAGE = Path(rt.__file__).parent


@pytest.mark.parametrize("name", [each for each in rt.__all__ if each != "__version__"])
def test_public_name_is_importable_and_documented(name: str) -> None:
    found = getattr(rt, name)
    assert inspect.getdoc(found), f"rt.{name} has no docstring"


@pytest.mark.parametrize("name", rt.testing.__all__)
def test_name_for_tests_is_importable_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(rt.testing, name)), f"rt.testing.{name} has no docstring"


def test_rt_needs_pytest_only_for_tests_of_teams() -> None:
    importing = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.startswith(("pytest", "rt.testing")) for name in names):
                importing.add(path.relative_to(PACKAGE).parts[0])
    assert importing == {"testing"}


def test_names_for_type_checkers_match_the_names_at_run_time() -> None:
    assert {*rt._MODULES, "__version__"} == set(rt.__all__)
    assert set(rt.__all__) <= set(dir(rt))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Robott'"):
        _ = rt.Robott


def test_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_import_of_the_package_imports_no_other_module() -> None:
    code = "import sys, rt; print([name for name in sys.modules if name.startswith('rt.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
