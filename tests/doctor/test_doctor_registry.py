"""Declaration, isolated execution and reports of checks."""

import json
from pathlib import Path

import pytest

from rt import doctor
from rt.config import Config
from rt.doctor import registry, report
from rt.doctor.registry import Check, Environment, Finding, Result
from rt.terminal.console import console


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(config=Config(), directory=tmp_path)


def test_every_check_has_a_meaning_of_one_line() -> None:
    for each in doctor.checks().values():
        assert each.meaning, each.id
        assert each.id == each.id.lower()


def test_check_that_raises_fails(environment: Environment) -> None:
    def crash(_: Environment) -> Result:
        raise ZeroDivisionError("by zero")

    finding = registry.run_one(Check("crash", "It crashes", crash), environment)
    assert (finding.status, finding.fact) == (
        "fail",
        "the check itself failed: ZeroDivisionError: by zero",
    )
    assert finding.remedy


def test_duplicate_id_is_refused() -> None:
    doctor.checks()
    with pytest.raises(ValueError, match="two checks have the id 'shm'"):
        doctor.check("shm")(lambda _: doctor.ok("twice"))


def test_only_the_named_checks_run(environment: Environment) -> None:
    assert [finding.id for finding in doctor.examine(environment, ["serial", "python"])] == [
        "python",
        "serial",
    ]


def test_check_on_request_runs_only_if_named(environment: Environment) -> None:
    assert [finding.status for finding in doctor.examine(environment, ["stdlib"])] == ["skip"]


def test_unknown_id_is_an_error_with_the_nearest(environment: Environment) -> None:
    with pytest.raises(LookupError, match="unknown check 'adresses'; did you mean addresses"):
        doctor.examine(environment, ["adresses"])


FINDINGS = [
    Finding("python", "ok", "3.11", ""),
    Finding("serial", "warn", "none [there]", "plug one in"),
    Finding("code", "skip", "none", ""),
]


def test_warning_is_not_a_failure() -> None:
    assert report.exit_status(FINDINGS) == 0
    assert report.exit_status([*FINDINGS, Finding("shm", "fail", "absent", "mount it")]) == 1


def test_json_is_a_list_of_objects() -> None:
    assert json.loads(report.as_json(FINDINGS))[1] == {
        "id": "serial",
        "status": "warn",
        "fact": "none [there]",
        "remedy": "plug one in",
    }


def test_table_shows_the_remedy_below_the_fact(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(FINDINGS, console())
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    at = next(number for number, line in enumerate(lines) if line.startswith("serial"))
    assert lines[at].split() == ["serial", "warn", "none", "[there]"]
    assert lines[at + 1] == "-> plug one in"
    assert "1 warned, 1 skipped, 1 ok" in lines
