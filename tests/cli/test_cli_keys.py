"""The `rt keys` commands, and the flags `--robot` and `--key`."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from rt.cli import main

Shell = pytest.MonkeyPatch
KEYS = "state/rt/default/keys"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: Shell) -> Iterator[Path]:
    for name in ("RT_ROBOT", "RT_KEY", "RT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    structlog.reset_defaults()


def test_key_is_made_listed_and_revoked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["keys", "new", "blue"]) == 0
    assert capsys.readouterr().out.startswith("wrote blue.rtkey; move it to the station")
    assert (here / "blue.rtkey").stat().st_mode & 0o777 == 0o600
    assert main.run(["keys", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], len(row["public"])) == ("blue", 40)
    assert main.run(["keys", "list"]) == 0
    assert capsys.readouterr().out.startswith("blue  made 20")
    assert main.run(["keys", "revoke", "blue"]) == 0
    assert (
        capsys.readouterr().out == "revoked blue; a running robot disconnects it within a second\n"
    )
    assert main.run(["keys", "list"]) == 0
    assert "`rt keys new NAME` makes one" in capsys.readouterr().err


def test_keys_are_outside_of_the_project(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["keys", "new", "blue"]) == 0
    assert capsys.readouterr().err == ""
    assert (here / KEYS / "blue.station").exists()
    assert (here / KEYS).stat().st_mode & 0o777 == 0o700
    assert not (here / "keys").exists()
    assert main.run(["keys", "new", "blue", "--instance", "second", "--output", "-"]) == 0
    assert (here / "state/rt/second/keys/blue.station").exists()


def test_keys_in_project_work_and_hint_moves_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main.run(["keys", "new", "blue", "--keys-dir", "keys", "--output", "-"])
    capsys.readouterr()
    assert main.run(["keys", "list"]) == 0
    out, hint = capsys.readouterr()
    assert out.startswith("blue ")
    assert len(hint.splitlines()) == 1
    assert "in the project's directory" in hint
    subprocess.run(["sh", "-c", hint.split("`")[1]], check=True, cwd=here)
    assert main.run(["keys", "list"]) == 0
    out, hint = capsys.readouterr()
    assert out.startswith("blue ")
    assert hint == ""


@pytest.mark.parametrize("sign", ["rt.toml", ".git"])
def test_key_file_in_project_causes_warning(
    here: Path, capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    (here / sign).touch()
    (here / "team").mkdir()
    assert main.run(["keys", "new", "blue", "--output", "team/blue.rtkey"]) == 0
    assert "is in the project" in capsys.readouterr().err


def test_key_is_written_to_chosen_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["keys", "new", "blue", "--keys-dir", "secret", "--output", "-"]) == 0
    assert capsys.readouterr().out.startswith('station = "blue"\nrobot_public = "')
    assert (here / "secret" / "blue.station").exists()
    assert not (here / "blue.rtkey").exists()


def test_existing_output_file_is_kept_and_no_key_made(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "blue.rtkey").write_text("precious")
    assert main.run(["keys", "new", "blue"]) == 78
    assert (
        capsys.readouterr().err == "rt: blue.rtkey already exists; use another file with --output\n"
    )
    assert not (here / "state").exists()


@pytest.mark.parametrize("output", ["absent/blue.rtkey", "x" * 300])
def test_unwritable_output_leaves_no_key(
    here: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    assert main.run(["keys", "new", "blue", "--output", output]) == 78
    assert "cannot write" in capsys.readouterr().err
    assert not (here / KEYS / "blue.station").exists()


def test_accessible_key_directory_causes_one_warning(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / KEYS).mkdir(mode=0o755, parents=True)
    assert main.run(["keys", "list"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "is accessible to other users; run `chmod 700" in line


def test_unknown_station_suggests_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["keys", "new", "blue", "--output", "-"])
    assert main.run(["keys", "revoke", "bule"]) == 78
    assert "no key for a station 'bule'; did you mean blue?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--key", "blue.rtkey"], "--key requires --robot tcp://HOST:PORT"),
        (["--robot", "tcp://127.0.0.1:1", "--key", "absent.rtkey"], "absent.rtkey does not exist"),
        (["--robot", "robot"], "invalid robot address robot; use tcp://HOST:PORT"),
        (["--robot", "tcp://127.0.0.1:1"], "nothing listens at tcp://127.0.0.1:1"),
    ],
)
def test_unreachable_robot_is_reported_at_once(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main.run(["call", *arguments, "mode"]) in {1, 78}
    assert sentence in capsys.readouterr().err


def test_environment_selects_robot_and_key(
    monkeypatch: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RT_ROBOT", "tcp://127.0.0.1:1")
    monkeypatch.setenv("RT_KEY", "absent.rtkey")
    assert main.run(["call", "mode"]) == 78
    assert "absent.rtkey does not exist" in capsys.readouterr().err
    monkeypatch.delenv("RT_ROBOT")
    assert main.run(["call", "--instance", "nobody-here", "mode"]) == 1
    assert "no robot runs as 'nobody-here'" in capsys.readouterr().err
