"""rt's own checks, on programs with and without findings."""

import textwrap
from pathlib import Path

import pytest
from support.lint import linted
from support.lint_cases import HITS, LAST, MAIN, MISSES

from rt.lint.check import checks


def test_every_check_has_programs_with_and_without_findings() -> None:
    assert sorted(HITS) == sorted(MISSES) == list(checks())


def test_numbers_and_names_are_unique() -> None:
    assert len({each.symbol for each in checks().values()}) == len(checks())
    assert all(each.meaning.endswith(".") for each in checks().values())


@pytest.mark.parametrize(
    ("number", "program", "at"),
    [(number, program, at) for number, cases in HITS.items() for program, at in cases],
)
def test_finding_has_its_position(tmp_path: Path, number: str, program: str, at: str) -> None:
    found = [each for each in linted(tmp_path, program) if each.message_id == number]
    assert len(found) == 1, program
    before = program[: program.rindex(at)] if at in LAST else program[: program.index(at)]
    assert found[0].line == before.count("\n") + 1
    assert found[0].column == len(before.rpartition("\n")[2])
    assert found[0].symbol == checks()[number].symbol
    assert found[0].type == checks()[number].type
    assert not [each for each in linted(tmp_path, program) if each.type == "fatal"]


@pytest.mark.parametrize(
    ("number", "program"),
    [(number, program) for number, programs in MISSES.items() for program in programs],
)
def test_correct_or_uncertain_code_has_no_finding(
    tmp_path: Path, number: str, program: str
) -> None:
    records = linted(tmp_path, program)
    assert number not in {each.message_id for each in records}
    assert "fatal" not in {each.type for each in records}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            'Robot.write("left_moter", "duty_cycle", 1)',
            "there is no device 'left_moter'; did you mean left_motor?",
        ),
        (
            'Robot.get("motor", "duty_cycl")',
            "polar-bear has no parameter 'duty_cycl'; did you mean duty_cycle?",
        ),
        (
            'Robot.write("motor", "duty_cycle", 1.5)',
            "duty_cycle ranges from -1 to 1: 1.5 is written as 1",
        ),
        ('Robot.write("motor", "duty_cycle", "x")', "duty_cycle takes a number, not 'x'"),
        ('Robot.wirte("motor", "duty_cycle", 1)', "Robot has no wirte; did you mean write?"),
        (
            'Robot.write("motor", "duty_cycle")',
            "Robot.write(device, param, value) is called without value",
        ),
        ('Gamepad.get("button_a", 9)', "gamepad numbers are 0 to 3, not 9"),
        ('Robot.write("motor", "pid_pos_kp", -1)', "pid_pos_kp is at least 0: -1 is written as 0"),
        (
            'Robot.set_value("motor", 1)',
            "Robot has no set_value: write Robot.write(device, param, value)",
        ),
        ("Robot.run(wave)", "Robot has no run: write Actions.run(action, ...)"),
        ("print(Field.clock > 1)", "Field.clock is not called: write Field.clock()"),
        ("print(Field.mode == 'auto')", "Field.mode is not a string: compare `Field.mode.name`"),
        (
            "while True: pass",
            "this loop never ends, but teleop_main is called repeatedly: remove the loop",
        ),
    ],
)
def test_message_says_what_is_wrong_and_what_to_do(
    tmp_path: Path, program: str, message: str
) -> None:
    program = f"async def wave():\n    pass\n{MAIN}{program}"
    assert [each.message for each in linted(tmp_path, program)] == [message]


def test_record_names_its_function(tmp_path: Path) -> None:
    program = """
        class Arm:
            def lift(self):
                Robot.write("no", "servo0", 1.0)

        def teleop_main():
            Arm().lift()
            import os
    """
    assert {each.symbol: each.obj for each in linted(tmp_path, textwrap.dedent(program))} == {
        "unknown-device": "Arm.lift",
        "UnusedImport": "teleop_main",
    }


def test_columns_are_counted_in_characters(tmp_path: Path) -> None:
    records = linted(tmp_path, MAIN + 'print("äöü→"); Robot.get("mtor", "duty_cycle"); x = 1')
    assert {each.symbol: each.column for each in records} == {
        "unknown-device": 29,
        "UnusedVariable": 52,
    }
