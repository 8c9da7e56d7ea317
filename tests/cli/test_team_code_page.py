"""docs/team-code.md matches the code."""

import ast
import re
from pathlib import Path

import pytest

import rt
from rt import catalog
from rt.catalog import Peripheral
from rt.config import Config
from rt.lint.api import METHODS, NAMES, VALUES
from rt.lint.lint import lint
from rt.lint.request import LintRequest

PAGE = (Path(rt.__file__).parents[1] / "docs" / "team-code.md").read_text("utf-8")
GAMEPAD: Peripheral = catalog.load()["gamepad"]
DEVICES = {"left_motor": str(12 << 72 | 1), "bumper": "1", "arm": str(7 << 72 | 1)}
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_pass_lint(tmp_path: Path, program: str) -> None:
    (tmp_path / "studentcode.py").write_text(program)
    assert (
        lint(
            LintRequest(
                directory=str(tmp_path), config=Config(exec_module="studentcode", dev_name=DEVICES)
            )
        )
        == []
    )


def test_page_has_programs_and_valid_station() -> None:
    assert len(PROGRAMS) >= 2
    (station,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    ast.parse(station)


def test_buttons_and_bits_match_catalog() -> None:
    shown = {name: int(value) for name, value in re.findall(r"`(\w+)` \| (\d+) ", PAGE)}
    buttons = [param.name for param in GAMEPAD.params if not param.is_real]
    assert shown == {name: 1 << bit for bit, name in enumerate(buttons)}


def test_sticks_match_catalog() -> None:
    shown = dict(re.findall(r"`(joystick_\w+)` \| `(\w+)`", PAGE))
    assert list(shown) == [param.name for param in GAMEPAD.params if param.is_real]
    for name, letters in shown.items():
        _, side, axis = name.split("_")
        assert letters == side[0] + axis


def test_page_documents_every_name_and_method() -> None:
    for owner in NAMES:
        for name in (*METHODS.get(owner, ()), *VALUES.get(owner, ())):
            assert f"{owner}.{name}" in PAGE, name
