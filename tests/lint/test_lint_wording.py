"""The messages of pyflakes and Python, with remedies for people who learn to program."""

from pathlib import Path

import pytest
from support.lint import linted

MAIN = "\n\ndef teleop_main():\n    "


def messages(tmp_path: Path, program: str, **modules: str) -> list[str]:
    return [each.message for each in linted(tmp_path, program, **modules)]


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("robot.get('motor', 'enc_pos')", "undefined name 'robot'; did you mean Robot?"),
        ("print(true)", "undefined name 'true'; did you mean True?"),
        ("teleop_mian()", "undefined name 'teleop_mian'; did you mean teleop_main?"),
        ("time.monotonic()", "undefined name 'time': write `import time` at the top of the file"),
        (
            "print(sqrt(2))",
            "undefined name 'sqrt': write `from math import sqrt` at the top of the file",
        ),
        ("sleep(1)", "undefined name 'sleep': an action waits with `await Actions.sleep(...)`"),
        (
            "Robot.get(motor, 'enc_pos')",
            (
                "undefined name 'motor': device and parameter names are strings, so write it"
                " in quotes: 'motor'"
            ),
        ),
        (
            "print(left + 1)",
            "undefined name 'left': give it a value first, or correct its spelling",
        ),
        ("print(time)", "undefined name 'time': give it a value first, or correct its spelling"),
        ("print(self.x)", "undefined name 'self': give it a value first, or correct its spelling"),
    ],
)
def test_undefined_name_has_a_suggestion(tmp_path: Path, line: str, remedy: str) -> None:
    assert messages(tmp_path, MAIN + line) == [remedy]


def test_name_that_exec_may_create_is_not_undefined(tmp_path: Path) -> None:
    assert (
        messages(
            tmp_path, f"for side in 'lr':\n    exec(f'{{side}}_speed = 0'){MAIN}print(l_speed)"
        )
        == []
    )
    assert messages(tmp_path, f"globals().update(speed=1){MAIN}print(speed)") == []


def test_method_without_self_has_a_remedy(tmp_path: Path) -> None:
    program = f"class Arm:\n    def lift():\n        print(self.angle){MAIN}Arm.lift()"
    assert messages(tmp_path, program) == [
        "undefined name 'self': write `def lift(self):`, with its other arguments"
    ]


def test_assignment_to_a_global_has_a_remedy(tmp_path: Path) -> None:
    (message,) = messages(tmp_path, f"speed = 0{MAIN}speed = 1")
    assert message == (
        "the speed of line 1 keeps its value: to change it, write `global speed`"
        " as the first line of this function"
    )
    (message,) = messages(tmp_path, f"speed = 0{MAIN}speed += 1\n    print(speed)")
    assert message == (
        "speed is used before this function gives it a value: write `global speed`"
        " as its first line to use the speed of line 1"
    )
    inner = "speed = 0\n    def faster():\n        speed += 1\n        print(speed)\n    faster()"
    assert "write `nonlocal speed`" in messages(tmp_path, MAIN + inner)[0]


def test_function_defined_twice_is_found(tmp_path: Path) -> None:
    assert messages(tmp_path, f"{MAIN}pass{MAIN}pass") == [
        "teleop_main is defined twice: this one replaces that of line 3, which is never used"
    ]


class TestStarImports:
    def test_name_that_may_be_imported_is_not_undefined(self, tmp_path: Path) -> None:
        program = f"from math import *\nfrom turn import *{MAIN}print(sin(pi), spin, anything)"
        (found,) = linted(tmp_path, program, turn="spin = 1\n")[1:]
        assert found.symbol == "ImportStarUsed"
        assert found.message.endswith("name what you need, as in `from turn import NAME`")

    def test_name_that_team_code_lacks_is_undefined(self, tmp_path: Path) -> None:
        found = linted(tmp_path, f"from turn import *{MAIN}print(spin, spni)", turn="spin = 1\n")
        assert [(each.symbol, each.type, each.column) for each in found][1:] == [
            ("UndefinedName", "error", 16)
        ]


def test_unevaluated_annotation_needs_no_name(tmp_path: Path) -> None:
    arm = (
        "def lift(robot: Robot) -> Robot | None:\n"
        "    speeds: list[Robot] = [robot]\n    return speeds[0]\n"
    )
    program = f"import arm{MAIN}arm.lift(Robot)"
    assert messages(tmp_path, program, arm=f"from __future__ import annotations\n{arm}") == []
    assert len(messages(tmp_path, program, arm=arm)) == 2
    assert (
        len(
            messages(
                tmp_path,
                program,
                arm="from __future__ import annotations\nprint(Robot)\n\n\ndef lift(r): ...\n",
            )
        )
        == 1
    )


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("print(“hello”)", "invalid character '“' (U+201C): write straight quotes, \" or '"),
        ("x = 3 \u2212 1", "invalid character '\u2212' (U+2212): type it anew on the keyboard"),
        (
            "def f():\n    await g()",
            (
                "'await' outside async function: write `async def` instead of `def` before the"
                " function's name"
            ),
        ),
        (
            "if 1:\n\tx = 1\n        y = 1",
            (
                "inconsistent use of tabs and spaces in indentation: indent every line with spaces,"
                " 4 for each level"
            ),
        ),
        ("if x || y: pass", "invalid syntax: write `or` instead of `||`"),
        (
            "if x:\n    pass\nelse if y:\n    pass",
            "expected ':': write `elif` instead of `else if`",
        ),
        ("x = 1\nx++", "invalid syntax: write `+= 1` instead of `++`"),
        ("var x = 1", "invalid syntax: remove the word before the name"),
        ("print 'x'", "Missing parentheses in call to 'print'. Did you mean print(...)?"),
        (
            "x = = 1",
            (
                "invalid syntax: look for a missing bracket, quote, comma or colon here and at"
                " the end of the line above"
            ),
        ),
    ],
)
def test_syntax_error_has_a_remedy(tmp_path: Path, program: str, message: str) -> None:
    assert messages(tmp_path, program) == [message]
