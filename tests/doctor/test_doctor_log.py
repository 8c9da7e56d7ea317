"""The check of the log file against real places."""

from pathlib import Path

from rt import doctor
from rt.config import Config
from rt.doctor import Environment, Finding


def look(directory: Path, file: str, **options: int) -> Finding:
    config = Config(log_file=file, log_file_size=options.get("size", 100_000))
    (finding,) = doctor.examine(Environment(config=config, directory=directory), ["log-file"])
    return finding


def test_a_place_that_is_still_to_be_made_is_fine(tmp_path: Path) -> None:
    assert look(tmp_path, str(tmp_path / "new" / "robot.log")).status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_nothing_to_look_at(tmp_path: Path) -> None:
    assert look(tmp_path, "").status == "skip"


def test_a_place_that_takes_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "robot.log"):
        finding = look(tmp_path, str(path))
        assert finding.status == "warn"
        assert "log_file" in finding.remedy


def test_too_little_room_is_said(tmp_path: Path) -> None:
    finding = look(tmp_path, "/proc/robot.log")
    assert finding.status == "warn"
