from pathlib import Path

import pytest

from rt.errors import ExecutionError
from rt.executor.loader import load


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_code_finds_given_names_without_import(tmp_path: Path) -> None:
    path = write(tmp_path / "code_a.py", "answer = Robot + 1")
    assert load(path, {"Robot": 41}).answer == 42


def test_each_load_reads_the_current_files(tmp_path: Path) -> None:
    path = write(tmp_path / "code_b.py", "import code_b_helper\nvalue = code_b_helper.value")
    helper = write(tmp_path / "code_b_helper.py", "value = 1")
    assert load(path, {}).value == 1
    helper.write_text("value = 20")
    assert load(path, {}).value == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n  pass", r"bad\.py:1: invalid syntax"),
        ("x = 1\ny = x / 0", r"bad\.py:2: ZeroDivisionError"),
        ("\n\nimport nothing_of_this_name", r"bad\.py:3: ModuleNotFoundError"),
        ("def f():\n    return missing\nf()", r"bad\.py:2: NameError"),
        ("import sys\nsys.exit(3)", r"bad\.py:2: SystemExit: 3"),
        ("x = 1\nint('one')", r"bad\.py:2: ValueError: invalid literal"),
        ("\nopen('/nothing/there')", r"bad\.py:2: FileNotFoundError"),
        ("\ncompile('x = = 1', 'made.py', 'exec')", r"made\.py:1: invalid syntax"),
    ],
)
def test_code_that_cannot_be_loaded_is_refused_with_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ExecutionError, match=message):
        load(write(tmp_path / "bad.py", text), {})


def test_binary_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.py"
    path.write_bytes(b"\0\xff\0")
    with pytest.raises(ExecutionError, match=r"noise\.py"):
        load(path, {})


def test_packages_in_the_folder_are_reloaded(tmp_path: Path) -> None:
    path = write(tmp_path / "code_c.py", "from code_c_parts.arm import value")
    write(tmp_path / "code_c_parts" / "__init__.py", "")
    arm = write(tmp_path / "code_c_parts" / "arm.py", "value = 1")
    assert load(path, {}).value == 1
    arm.write_text("value = 20")
    assert load(path, {}).value == 20
