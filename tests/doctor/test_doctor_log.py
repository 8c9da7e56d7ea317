"""The check of the log file with real paths."""

from pathlib import Path

from rt import doctor
from rt.config import Config
from rt.doctor import Environment, Finding


def look(directory: Path, file: str, **options: int) -> Finding:
    config = Config(log_file=file, log_file_size=options.get("size", 100_000))
    (finding,) = doctor.examine(Environment(config=config, directory=directory), ["log-file"])
    return finding


def test_missing_directory_is_ok_and_not_created(tmp_path: Path) -> None:
    assert look(tmp_path, str(tmp_path / "new" / "robot.log")).status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_empty_log_file_is_skipped(tmp_path: Path) -> None:
    assert look(tmp_path, "").status == "skip"


def test_path_that_cannot_be_created_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "robot.log"):
        finding = look(tmp_path, str(path))
        assert finding.status == "warn"
        assert "log_file" in finding.remedy


def test_too_little_disk_space_is_a_warning(tmp_path: Path) -> None:
    finding = look(tmp_path, "/proc/robot.log")
    assert finding.status == "warn"
