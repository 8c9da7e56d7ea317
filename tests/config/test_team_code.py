"""The file of the team code, by module name and by path."""

from pathlib import Path

import pytest

from rt.config.team_code import find, locate
from rt.errors import ExecutionError


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def test_code_is_found_by_module_or_by_path(tmp_path: Path) -> None:
    flat = write(tmp_path / "studentcode.py")
    nested = write(tmp_path / "robot" / "drive.py")
    package = write(tmp_path / "season" / "__init__.py")
    assert locate("studentcode", tmp_path) == flat
    assert locate("robot.drive", tmp_path) == nested
    assert locate("season", tmp_path) == package
    assert locate("robot/drive.py", tmp_path) == nested
    assert locate(str(flat), tmp_path) == flat


@pytest.mark.parametrize("name", ["studentcode", "a" * 300, "a\0b", "studentcode.py/x", "robot/"])
def test_missing_code_is_an_error_with_a_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "robot").mkdir()
    assert find(name, tmp_path) is None
    with pytest.raises(ExecutionError, match=r"; write it \(`rt init`"):
        locate(name, tmp_path)
