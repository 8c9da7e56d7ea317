"""Tests of the package table in ARCHITECTURE.md, and of the paths in the justfile."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `(\w+)(?:/)?` \|[^|]*\|([^|]*)\|$", re.MULTILINE)


def packages() -> set[str]:
    """Return the packages and the top-level modules of rt."""
    return {
        path.stem for path in (ROOT / "rt").iterdir() if path.is_dir() or path.suffix == ".py"
    } - {"__pycache__", "__init__", "__main__", "py"}


def table() -> dict[str, set[str]]:
    """Return the table of ARCHITECTURE.md: package -> packages that it imports."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    return {name: set(imports.split()) for name, imports in ROW.findall(text)}


def imports_of(package: str) -> set[str]:
    """Return the packages of rt that a package imports anywhere."""
    path = ROOT / "rt" / package
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {
                    each.name.partition(".")[2] for each in node.names if each.name[:3] == "rt."
                }
            elif isinstance(node, ast.ImportFrom) and node.module == "rt":
                found |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rt."):
                found.add(str(node.module)[3:])
    return ({each.partition(".")[0] for each in found} & packages()) - {package}


def test_every_package_is_in_the_table() -> None:
    assert set(table()) == packages()


@pytest.mark.parametrize("package", sorted(packages()))
def test_import_column_is_correct(package: str) -> None:
    assert " ".join(sorted(table()[package])) == " ".join(sorted(imports_of(package)))


def test_architecture_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= 200


def test_paths_in_the_justfile_exist() -> None:
    paths = re.findall(
        r"\b(?:rt|tests|packaging)/[\w./*-]+", (ROOT / "justfile").read_text("utf-8")
    )
    assert len(paths) > 10
    assert [path for path in paths if not any(ROOT.glob(path.rstrip(".")))] == []
